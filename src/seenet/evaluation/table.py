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
    for name in ("IoU", "accuracy", "Dice", "pixels"):
        table.add_column(name, justify="right")
    pixels = sum(entry["pixels"] for entry in result["classes"])
    for entry in result["classes"]:
        share = entry["pixels"] / pixels if pixels else None
        table.add_row(entry["name"], *map(percent, (entry["iou"], entry["accuracy"], entry["dice"], share)))
    table.add_section()
    present = len(result["classes"]) - len(result["absent"])
    table.add_row(f"mean of {present}", percent(result["miou"]), percent(result["mean_class_accuracy"]), "", "", style="bold")
    weighted = percent(result["frequency_weighted_iou"])
    lines = [f"pixel accuracy {percent(result['pixel_accuracy'])}, frequency-weighted IoU {weighted}"]
    if result["loss"] is not None:
        lines[0] += f", loss {result['loss']:.4f}"
    if result["absent"]:
        lines.append(f"absent, left out of the mean: {', '.join(result['absent'])}")
    group: list[Table | Text] = [table, *map(Text, lines)]
    if result["boundary"]:
        group.append(_bands(result["boundary"]))
    return Group(*group)


def _bands(boundary: dict[str, Any]) -> Table:
    table = Table(title=f"{boundary['kind']} mIoU within so many pixels", title_justify="left")
    for width in boundary["miou"]:
        table.add_column(width, justify="right")
    table.add_row(*map(percent, boundary["miou"].values()))
    return table


def percent(share: float | None) -> str:
    """0.4567 -> "45.7"; "-" where there is none."""
    return "-" if share is None else f"{100 * share:.1f}"
