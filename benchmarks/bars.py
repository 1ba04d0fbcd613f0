"""The bars, and the table of the measurements beside them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUSY = 0.05
"""Results are marked where other processes took a larger share of the CPU time than this."""
HEADER = ("line", "what", "found", "bar", "met", "DeepLabv3+", "GFLOP", "MiB", "of matmul", "")


@dataclass(frozen=True)
class Row:
    """One number and its bar; `met` is None where there is no number or no bar."""

    line: int
    what: str
    found: str
    bar: str
    met: bool | None
    more: tuple[str, str, str, str] = ("", "", "", "")
    note: str = ""


RATIOS = {"resnet50": (1.0, {"training": 1.2, "inference": 1.1}), "resnet18": (0.9, {})}
"""Least ratio of SeENet's images/s over DeepLabv3's, and the aim.

On light backbones the bar is 1, over DeepLabv3+'s.
"""

MEMORY = {"training": 1.15, "prediction": 1.0}
"""Largest ratio of SeENet's peak memory over DeepLabv3's."""


VALUES = {
    "auto over plain": ("predict as it chooses: images/s over plain fp32 eager", ">=", 1.3),
    "auto over plain with bf16": (
        "predict as it chooses: images/s over plain fp32 eager",
        ">=",
        2.0,
    ),
    "auto: mIoU": ("predict as it chooses: points of mIoU off", "<=", 0.1),
    "scales and flips": ("6 scales with flips, over the sum of their passes", "<=", 1.05),
    "confusion matrix": ("confusion matrix, over a pass at one scale", "<=", 0.02),
    "loader over training": (
        "camvid-lite0: loader with one worker, over what training takes",
        ">=",
        2.0,
    ),
    "predict in the network": ("predict on 100 CamVid frames: share in the network", ">=", 0.85),
    "help start-up": ("seenet --help, over python -c pass", "<=", 8.0),
    "import start-up": ("import seenet, over python -c pass", "<=", 4.0),
    "predict start-up": (
        "predict of one photograph, over import torch, timm and a pass",
        "<=",
        1.5,
    ),
}
"""Meaning of a value, and its bar."""


def results(folder: Path) -> list[dict[str, Any]]:
    """Read all results of a folder, sorted by line and name; growth by axis and value."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return sorted(
        found,
        key=lambda result: (
            result["line"],
            result.get("axis", result["name"]),
            result.get("value", 0),
        ),
    )


def rows(result: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of a result."""
    if "error" in result or "skipped" in result:
        yield Row(
            result["line"],
            result["name"],
            "not run",
            "",
            None,
            note=result.get("error") or result["skipped"],
        )
    elif "contestants" in result:
        yield _comparison(result)
    elif "runs" in result:
        yield from _equal_time(result)
    elif "axis" in result:
        text = f"{result['seconds']['median']:.3g} s a picture, {result['mib']} MiB"
        yield Row(
            result["line"],
            f"growth: {result['axis']} {result['value']}",
            text,
            "",
            None,
            note=mark(result),
        )
    elif "peak_mib" in result:
        yield _memory(result)
    else:
        for name, value in result["values"].items():
            what, sign, bound = VALUES[name]
            met = value <= bound if sign == "<=" else value >= bound
            yield Row(
                result["line"], what, f"{value:.3g}", f"{sign} {bound:g}", met, note=mark(result)
            )


def _comparison(result: dict[str, Any]) -> Row:
    ours, plus = result["contestants"]["seenet"], result["contestants"]["deeplabv3plus"]
    more = (
        f"{plus['ratio']['median']:.2f}",
        f"{ours['gflop']:.0f}",
        str(ours["peak_mib"]),
        f"{100 * ours['of_matmul']:.0f} %",
    )
    if result["backbone"] in RATIOS:
        least, aims = RATIOS[result["backbone"]]
        found, bar = (
            ours["ratio"],
            f">= {least:g}" + (f", aim {aims[result['kind']]:g}" if result["kind"] in aims else ""),
        )
    else:
        least, found, bar = 1.0, result["over_deeplabv3plus"], ">= DeepLabv3+"
    text = f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
    return Row(
        result["line"], result["name"], text, bar, found["median"] >= least, more, mark(result)
    )


def _equal_time(result: dict[str, Any]) -> Iterator[Row]:
    speed = result["speed_over_deeplabv3plus"]
    text = f"{speed['median']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})"
    yield Row(
        2,
        "light networks: images/s",
        text,
        ">= DeepLabv3+",
        speed["median"] >= 1,
        note=mark(result),
    )
    for split in dict.fromkeys(run["split"] for run in result["runs"]):
        miou = {
            run["network"]: 100 * run["miou"] for run in result["runs"] if run["split"] == split
        }
        what = f"light networks after {result['minutes']:g} minutes: mIoU on {split}"
        plus = f"{miou['deeplabv3plus']:.1f} %"
        yield Row(
            2,
            what,
            f"{miou['seenet']:.1f} %",
            ">= DeepLabv3+",
            miou["seenet"] >= miou["deeplabv3plus"],
            (plus, "", "", ""),
        )


def _memory(result: dict[str, Any]) -> Row:
    mib, most = result["peak_mib"], MEMORY[result["kind"]]
    times = "" if most == 1 else f"{most:g} of "
    aim = ", aim 1000 MB" if result["kind"] == "prediction" else ""
    bar = f"<= {times}DeepLabv3's {mib['deeplabv3']} MiB{aim}"
    met = mib["seenet"] <= most * mib["deeplabv3"]
    plus = f"{mib['deeplabv3plus']} MiB"
    return Row(result["line"], result["name"], f"{mib['seenet']} MiB", bar, met, (plus, "", "", ""))


def mark(result: dict[str, Any]) -> str:
    """Return a mark for a result that was measured beside other work."""
    others = result.get("others") or 0
    return f"loaded: others had {100 * others:.0f} %" if others > BUSY else ""


def cells(folder: Path) -> list[tuple[str, ...]]:
    """Return the cells of the table's body."""
    words = {True: "yes", False: "NO", None: ""}
    found = [row for result in results(folder) for row in rows(result)]
    return [
        (str(row.line), row.what, row.found, row.bar, words[row.met], *row.more, row.note)
        for row in found
    ]


def table(folder: Path) -> str:
    """Return the table as text: a line for each result, with number, bar, and met or not."""
    body = [HEADER, *cells(folder)]
    widths = [max(len(row[column]) for row in body) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in body
    )
