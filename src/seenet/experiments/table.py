"""An ablation for people: Markdown, CSV, and a plot of every seed."""

import csv
import io
from typing import Any

from seenet.evaluation.pictures import png_bytes

RESOLVED = {True: "", False: ", not resolved", None: ", one seed"}


def partial_note(result: dict[str, Any]) -> str:
    """The line that stands above everything while a run is missing; empty when all are there."""
    if result["complete"]:
        return ""
    missing = result["missing"]
    named = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
    return f"PARTIAL: {result['finished']} of {result['planned']} runs are finished; missing: {named}"


def markdown(result: dict[str, Any]) -> str:
    """One table; measured mIoU and the paper's stand in columns of their own."""
    protocol = result["protocol"]
    where = f"{protocol['data']}/{protocol['split']}, {protocol['images']} images" if protocol else "nothing yet"
    header = [
        result["unit"], f"mIoU measured ({where}), %", "sd", "seeds", f"difference to {result['reference']}, points (95 % interval)",
        "parameters, M", "GFLOP", "images/s", "memory, MiB", "mIoU in the paper (VOC val), %",
    ]  # fmt: skip
    lines = [f"**{partial_note(result)}**", ""] if not result["complete"] else []
    for key, values in result["differs"].items():
        lines += [f"**Not the same in all runs: {key} ({', '.join(map(str, values))}).**", ""]
    lines += [line(header), line(["---", *["---:"] * (len(header) - 1)])]
    lines += [line(_cells(row, result["reference"])) for row in result["rows"]]
    rules = [f"- {name}: {rule}." for name, rule in result["rules"].items()]
    model = [f"Model: {result['model']['file']}, SHA-256 {result['model']['sha256']}.", ""] if "model" in result else []
    command = [f"Command: `{result['command']}`, SeENet {result['version']}."] if result["command"] else []
    return "\n".join([*lines, "", *rules, "- not resolved: the interval holds 0.", "", *model, *command]).rstrip() + "\n"


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: dict[str, Any], reference: str) -> list[str]:
    miou, paper = row["miou"], row["paper"]
    return [
        row["row"],
        "missing" if miou is None else f"{100 * miou['mean']:.2f}",
        "" if miou is None else "one seed" if miou["sd"] is None else f"{100 * miou['sd']:.2f}",
        f"{0 if miou is None else miou['seeds']} of {row['planned']}",
        "reference" if row["row"] == reference else difference_text(row["difference"]),
        f"{row['parameters'] / 1e6:.2f}",
        "unknown" if row["flops"] is None else f"{row['flops'] / 1e9:.2f}",
        "" if row["images_per_s"] is None else f"{row['images_per_s']:.2f}",
        "" if row["memory_mib"] is None else f"{row['memory_mib']:.0f}",
        "" if paper is None else f"{paper['miou']:.1f} ({paper['letter']}, {paper['backbone']})",
    ]


def difference_text(difference: dict[str, Any] | None) -> str:
    """`+1.20 (+0.40 to +2.00)` in points, of a difference in shares as results.json has it; what it does not say is added in words."""
    if difference is None:
        return "missing"
    interval = difference["interval"]
    bounds = "" if interval is None else f" ({100 * interval[0]:+.2f} to {100 * interval[1]:+.2f})"
    return f"{100 * difference['mean']:+.2f}{bounds}{RESOLVED[difference['resolved']]}"


COLUMNS = (
    "row", "complete", "seeds_done", "seeds_planned", "miou_mean", "miou_sd", "difference_mean", "difference_low", "difference_high",
    "difference_seeds", "parameters", "flops", "images_per_s", "memory_mib", "paper_row", "paper_backbone", "paper_voc_val_miou_percent",
)  # fmt: skip


def as_csv(result: dict[str, Any]) -> str:
    """One line a row, numbers as in results.json, empty where there is none; `complete` is false where a seed is missing."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in result["rows"]:
        miou, difference, paper = row["miou"] or {}, row["difference"] or {}, row["paper"] or {}
        low, high = difference.get("interval") or (None, None)
        done = miou.get("seeds", 0)
        writer.writerow([
            row["row"], "true" if done == row["planned"] else "false", done, row["planned"], miou.get("mean"), miou.get("sd"),
            difference.get("mean"), low, high, difference.get("seeds"), row["parameters"], row["flops"], row["images_per_s"],
            row["memory_mib"], paper.get("letter"), paper.get("backbone"), paper.get("miou"),
        ])  # fmt: skip
    return stream.getvalue()


def plot(result: dict[str, Any]) -> bytes:
    """PNG: each seed a dot, the mean a bar with its 95 % interval, rows from top to bottom. Measured numbers alone."""
    # Imported here: slow, and --dry-run draws nothing. No pyplot: it would keep state and pick a backend.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = result["rows"]
    figure = Figure(figsize=(7, 1.4 + 0.42 * len(rows)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        axes.scatter([100 * run["miou"] for run in row["runs"]], [place] * len(row["runs"]), s=22, color="#0072b2", alpha=0.6, zorder=2)
        if row["miou"]:
            low, high = row["miou"]["interval"] or (row["miou"]["mean"],) * 2
            axes.plot([100 * low, 100 * high], [place, place], color="#d55e00", linewidth=1.6, zorder=1)
            axes.plot([100 * row["miou"]["mean"]], [place], marker="|", markersize=15, markeredgewidth=2.4, color="#d55e00", zorder=3)
    axes.set_yticks(range(len(rows)), [row["row"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_ylabel(result["unit"])
    protocol = result["protocol"]
    axes.set_xlabel(f"mIoU on {protocol['data']}/{protocol['split']}, %" if protocol else "mIoU, %")
    axes.set_title("dot: a seed; bar: mean and its 95 % interval", fontsize=9, loc="left")
    if not result["complete"]:
        figure.suptitle(f"PARTIAL: {result['finished']} of {result['planned']} runs", color="#d55e00", fontsize=11, fontweight="bold")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    return png_bytes(figure)
