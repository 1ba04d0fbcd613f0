"""Plots of docs/performance.md."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

Results = list[dict[str, Any]]
OURS, PLUS = "C0", "C7"


def draw(found: Results, folder: Path, kind: str) -> dict[str, str]:
    """Draw the plots that have results on one kind of CPU; return the title of each file."""
    drawn = {}
    for part, (title, plot) in PLOTS.items():
        figure, name = plot(found), f"performance-{kind}-{part}.png"
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / name, dpi=110)
            drawn[name] = title
    return drawn


def ratios(found: Results) -> Figure | None:
    """Draw a bar for each case: images/s of SeENet and of DeepLabv3+ over DeepLabv3's."""
    cases = [result for result in found if "contestants" in result]
    if not cases:
        return None
    figure = Figure(figsize=(9, 1.2 + 0.3 * len(cases)), layout="constrained")
    axes = figure.subplots()
    for place, result in enumerate(cases):
        for name, shift, colour in (("seenet", 0.2, OURS), ("deeplabv3plus", -0.2, PLUS)):
            ratio = result["contestants"][name]["ratio"]
            errors = [[ratio["median"] - ratio["low"]], [ratio["high"] - ratio["median"]]]
            label = {"seenet": "SeENet", "deeplabv3plus": "DeepLabv3+"}[name] if not place else None
            axes.barh(
                -place + shift,
                ratio["median"],
                0.38,
                xerr=errors,
                color=colour,
                label=label,
                error_kw={"elinewidth": 0.8},
            )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(
        [-place for place in range(len(cases))], [result["name"] for result in cases], fontsize=8
    )
    axes.set(xlabel="images/s over DeepLabv3's; median and quartiles of the rounds", xlim=(0, None))
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def growth(found: Results) -> Figure | None:
    """Draw seconds per picture and memory over size, batch, classes and processes."""
    points = [result for result in found if result.get("axis") and "mib" in result]
    axes_found = list(dict.fromkeys(point["axis"] for point in points))
    if not points:
        return None
    figure = Figure(figsize=(2.6 * len(axes_found), 5), layout="constrained")
    grid = figure.subplots(2, len(axes_found), squeeze=False)
    for column, name in enumerate(axes_found):
        those = sorted(
            (point for point in points if point["axis"] == name), key=lambda point: point["value"]
        )
        values = [point["value"] for point in those]
        for row, (label, numbers) in enumerate((
            ("s a picture", [point["seconds"]["median"] for point in those]),
            ("MiB", [point["mib"] for point in those]),
        )):  # fmt: skip
            axes = grid[row][column]
            axes.plot(values, numbers, marker="o", color=OURS)
            axes.set(
                xlabel=name,
                ylabel=label if not column else None,
                ylim=(0, 1.1 * max(numbers)),
                xscale="log",
            )
            axes.set_xticks(values, [str(value) for value in values], fontsize=7, rotation=30)
            axes.minorticks_off()
            axes.grid(alpha=0.3)
    return figure


def equal_time(found: Results) -> Figure | None:
    """Draw mIoU over images/s of networks on the light backbone after equal training time."""
    runs = [run for result in found for run in result.get("runs", [])]
    if not runs:
        return None
    splits = list(dict.fromkeys(run["split"] for run in runs))
    figure = Figure(figsize=(4 * len(splits), 3.2), layout="constrained")
    for axes, split in zip(figure.subplots(1, len(splits), squeeze=False)[0], splits, strict=True):
        for run in (run for run in runs if run["split"] == split):
            axes.plot(
                run["images_per_s"],
                100 * run["miou"],
                marker="o",
                color=OURS if run["network"] == "seenet" else PLUS,
            )
            axes.annotate(
                {"seenet": "SeENet", "deeplabv3plus": "DeepLabv3+"}[run["network"]],
                (run["images_per_s"], 100 * run["miou"]),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=8,
            )
        axes.set(title=split, xlabel="images/s at 360x480", ylabel="mIoU, %")
        axes.margins(0.25)
        axes.grid(alpha=0.3)
    return figure


PLOTS: dict[str, tuple[str, Callable[[Results], Figure | None]]] = {
    "ratios": ("Beside DeepLabv3 and DeepLabv3+", ratios),
    "equal-time": ("Light networks after equal training time", equal_time),
    "growth": ("Growth of prediction (ResNet-18)", growth),
}
"""Title and plot by the end of the file's name."""
