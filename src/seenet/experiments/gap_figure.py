"""The semantic gap for people: lines, and bars before and after enhancement."""

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from seenet.evaluation.pictures import png_bytes
from seenet.experiments.drawing import model_names

KINDS = {"before": "before enhancement", "after": "after enhancement", "branches": "the branches of SeEM alone"}


def lines(result: dict[str, Any]) -> list[str]:
    """For people, a pair a line."""
    return [f"{_name(entry):<22} {entry['cka']:.3f}  {KINDS[entry['kind']]}" for entry in result["pairs"]]


def _name(entry: dict[str, Any]) -> str:
    return f"{entry['stages'][0]}{' branches' if entry['kind'] == 'branches' else ''} and {entry['stages'][1]}"


def figure(result: dict[str, Any]) -> bytes:
    """PNG: a group of bars for each stage that is compared with, before and after enhancement and the branches alone."""
    colours = {"before": "#999999", "after": "#0072b2", "branches": "#e69f00"}
    # No pyplot: it would keep state and pick a backend.
    image = Figure(figsize=(6.6, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(image)
    axes = image.add_subplot()
    entries = result["pairs"]
    # A bar's width of room between the groups.
    places = [place + (entry["stages"][1] == "B4") for place, entry in enumerate(entries)]
    for kind, colour in colours.items():
        chosen = [(place, entry["cka"]) for place, entry in zip(places, entries, strict=True) if entry["kind"] == kind]
        if chosen:
            bars = axes.bar([place for place, _ in chosen], [cka for _, cka in chosen], color=colour, label=KINDS[kind])
            axes.bar_label(bars, fmt="%.3f", padding=2, fontsize=9)
    axes.set_xticks(places, [_name(entry).replace(" and ", "\nand ") for entry in entries], fontsize=9)
    axes.set_ylim(0, 1.08)
    axes.set_ylabel("linear CKA (1: alike)")
    model = Path(result["model"]["file"])
    (name,) = model_names([model], [str(model)])
    points = " and ".join(f"{count:,}" for count in dict.fromkeys(entry["pixels"] for entry in entries))
    axes.set_title(f"{name} on {result['data']}/{result['split']}, {points} points", fontsize=10, loc="left", parse_math=False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return png_bytes(image)
