"""An evaluation's result as tables in the terminal."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text


def tables(result: dict[str, Any]) -> Group:
    """The per-class table of a result (of `Evaluation.result`), the means under it, and the bands where there are any;
    shares in percent.
    """
    table = Table(title=f"{result['data']}/{result['split']}, {result['images']} pictures", title_justify="left")
    table.add_column("class")
    edges = result.get("boundary_iou")
    for name in ("IoU", "accuracy", "Dice", "pixels", *(["Boundary IoU"] if edges else [])):
        table.add_column(name, justify="right")
    pixels = sum(entry["pixels"] for entry in result["classes"])
    for entry in result["classes"]:
        share = entry["pixels"] / pixels if pixels else None
        shares = [entry["iou"], entry["accuracy"], entry["dice"], share, *([edges["classes"][entry["name"]]] if edges else [])]
        table.add_row(entry["name"], *map(percent, shares))
    table.add_section()
    present = len(result["classes"]) - len(result["absent"])
    means = [percent(result["miou"]), percent(result["mean_class_accuracy"]), "", "", *([percent(edges["miou"])] if edges else [])]
    table.add_row(f"mean of {present}", *means, style="bold")
    weighted = percent(result["frequency_weighted_iou"])
    lines = [f"pixel accuracy {percent(result['pixel_accuracy'])}, frequency-weighted IoU {weighted}"]
    if result["loss"] is not None:
        lines[0] += f", loss {result['loss']:.4f}"
    if result["absent"]:
        lines.append(f"absent, left out of the mean: {', '.join(result['absent'])}")
    lines += _more_means(result)
    group: list[Table | Text] = [table, *map(Text, lines)]
    if result["boundary"]:
        group.append(_bands(result["boundary"]))
    if "cityscapes" in result:
        group.append(_cityscapes(result["cityscapes"]))
        if result["cityscapes"]["iiou_missing"]:
            group.append(Text(f"no iIoU: {result['cityscapes']['iiou_missing']}"))
    if "conventions" in result:
        group.append(_conventions(result["conventions"]))
    return Group(*group)


def _more_means(result: dict[str, Any]) -> list[str]:
    lines = []
    # One picture, drawn again and again, has an interval of no width that would say nothing.
    several = result["images"] > 1
    if several and result["miou_interval"]:
        lines.append(f"95 % interval of the mIoU, pictures drawn with replacement: {_interval(result)}")
    if over := result["mean_over"]:
        interval = f" ({_interval(over)})" if several and over["miou_interval"] else ""
        lines.append(f"mIoU over {', '.join(over['classes'])}: {percent(over['miou'])}{interval}")
    return lines


def _interval(entry: dict[str, Any]) -> str:
    interval = entry["miou_interval"]
    return f"{percent(interval['low'])} to {percent(interval['high'])}"


def _bands(boundary: dict[str, Any]) -> Table:
    table = Table(title=f"{boundary['kind']} mIoU within so many pixels", title_justify="left")
    for width in boundary["miou"]:
        table.add_column(width, justify="right")
    table.add_row(*map(percent, boundary["miou"].values()))
    return table


def _cityscapes(scores: dict[str, Any]) -> Table:
    table = Table(title="Cityscapes", title_justify="left")
    for name in ("", "IoU", "iIoU"):
        table.add_column(name, justify="right" if name else "left")
    for name, entry in scores["categories"].items():
        table.add_row(name, percent(entry["iou"]), percent(entry["iiou"]))
    table.add_section()
    for level in ("class", "category"):
        table.add_row(f"mean, {level}", percent(scores[f"iou_{level}"]), percent(scores[f"iiou_{level}"]), style="bold")
    return table


def _conventions(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="mIoU by convention", title_justify="left")
    for name in ("labels and predictions", "absent classes", "mIoU", "whose"):
        table.add_column(name, justify="right" if name == "mIoU" else "left")
    for row in rows:
        size = "at the label's size" if row["size"] == "own" else "shorter side 520"
        absent = row["absent"] if isinstance(row["absent"], str) else f"count as {row['absent']:g}"
        # A mean that is not there is NaN in a tool that has it so; elsewhere nothing was scored.
        value = "NaN" if row["miou"] is None and absent == "NaN" else percent(row["miou"])
        table.add_row(size, absent, value, row["whose"])
    return table


def percent(share: float | None) -> str:
    """0.4567 -> "45.7"; "-" where there is none."""
    return "-" if share is None else f"{100 * share:.1f}"
