"""The bars, and the table of what was measured beside them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUSY = 0.05
"""Where other processes took more of the machine's processor time than this, a result is marked."""
HEADER = ("line", "what", "found", "bar", "met", "DeepLabv3+", "GFLOP", "MiB", "of matmul", "")


@dataclass(frozen=True)
class Row:
    """One number beside its bar; `met` is None where there is no number or no bar."""

    line: int
    what: str
    found: str
    bar: str
    met: bool | None
    more: tuple[str, str, str, str] = ("", "", "", "")
    note: str = ""


RATIOS = {"resnet50": (1.0, {"training": 1.2, "inference": 1.1}), "resnet18": (0.9, {})}
"""Least ratio of SeENet's images/s over DeepLabv3's, and what is aimed at. Light backbones: over DeepLabv3+'s, at least 1."""


def results(folder: Path) -> list[dict[str, Any]]:
    """All results of a folder, by line and name."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda result: (result["line"], result["name"]))


def rows(result: dict[str, Any]) -> Iterator[Row]:
    """What a result says of the bars."""
    if "error" in result or "skipped" in result:
        yield Row(result["line"], result["name"], "not run", "", None, note=result.get("error") or result["skipped"])
    elif "contestants" in result:
        yield _comparison(result)


def _comparison(result: dict[str, Any]) -> Row:
    ours, plus = result["contestants"]["seenet"], result["contestants"]["deeplabv3plus"]
    more = (f"{plus['ratio']['median']:.2f}", f"{ours['gflop']:.0f}", str(ours["peak_mib"]), f"{100 * ours['of_matmul']:.0f} %")
    if result["backbone"] in RATIOS:
        least, aims = RATIOS[result["backbone"]]
        found, bar = ours["ratio"], f">= {least:g}" + (f", aim {aims[result['kind']]:g}" if result["kind"] in aims else "")
    else:
        least, found, bar = 1.0, result["over_deeplabv3plus"], ">= DeepLabv3+"
    text = f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
    return Row(result["line"], result["name"], text, bar, found["median"] >= least, more, mark(result))


def mark(result: dict[str, Any]) -> str:
    """A word on a result that was measured beside other work."""
    others = result.get("others") or 0
    return f"loaded: others had {100 * others:.0f} %" if others > BUSY else ""


def cells(folder: Path) -> list[tuple[str, ...]]:
    """The table's body, cell by cell."""
    words = {True: "yes", False: "NO", None: ""}
    found = [row for result in results(folder) for row in rows(result)]
    return [(str(row.line), row.what, row.found, row.bar, words[row.met], *row.more, row.note) for row in found]


def table(folder: Path) -> str:
    """The table as text: a line a result, its number, its bar, met or not."""
    body = [HEADER, *cells(folder)]
    widths = [max(len(row[column]) for row in body) for column in range(len(HEADER))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in body)
