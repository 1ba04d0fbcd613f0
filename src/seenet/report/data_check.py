"""The page of `seenet data check`: errors with their images, and statistics of each split."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from seenet.core.errors import DataError
from seenet.core.files import check_free, write_text, writing_to
from seenet.core.images import read_image
from seenet.core.labels import LabelSet
from seenet.core.progress import track
from seenet.core.settings import DataSettings
from seenet.data.check.inspection import Finding, Inspection, SplitVerdict
from seenet.data.check.summary import as_json, split_summary, unused_line, verdict_line
from seenet.data.split import FileSplit, Split, reader_of
from seenet.prediction.result import colourize
from seenet.report.gallery import EncodedRow, striped
from seenet.report.html import number, photograph, png, render, shrunk

SHOWN = 12
"""Errors of one kind in a split that are shown with images; the others are only listed."""
UNKNOWN = (255, 0, 200)
"""Colour of pixels whose id is neither a class nor ignored; no data set uses it."""
KINDS = {
    "missing": "Missing files",
    "empty": "Empty files",
    "format": "Not images",
    "damaged": "Damaged files",
    "animated": "Animated files",
    "large": "Too large",
    "mask-kind": "Masks of another kind",
    "ids": "Unknown ids",
    "no-entry": "Values without an entry",
    "size": "Sizes that differ",
    "duplicate": "Duplicate images",
    "leak": "Images in two splits",
    "empty-split": "Empty split",
    "implausible": "Implausible as a whole",
}


def refuse_existing(out: Path, *, overwrite: bool) -> None:
    """Raise DataError where the page or its JSON exists (without `overwrite`)."""
    check_free([out / "index.html", out / "check.json"], overwrite=overwrite)


def write_page(inspection: Inspection, settings: DataSettings, out: Path) -> Path:
    """Write OUT/index.html, a single file, and OUT/check.json.

    Raises:
        DataError: a file cannot be written.
    """
    path = out / "index.html"
    wrong = sum(what == "wrong" for one in inspection.splits for _, what in one.verdicts())
    numbers = [
        (number(len(inspection.errors)), "errors"),
        (number(wrong), "pairs with errors"),
        (number(sum(len(one.pairs) for one in inspection.splits)), "pairs checked"),
        (number(len(inspection.notes)), "notes, which are not errors"),
    ]
    shown = [entry for verdict in inspection.splits for entry in _first_findings(verdict)]
    rows: dict[tuple[str, str], list[EncodedRow]] = defaultdict(list)
    for verdict, finding in track(shown, "images of the errors", len(shown)):
        row = EncodedRow(finding.message, _views(verdict.split, finding), [])
        rows[verdict.which, finding.kind].append(row)
    render(
        path,
        "data_check.html.j2",
        title=f"Data check: {settings.root.resolve().name if settings.root else settings.kind}",
        verdict=verdict_line(inspection),
        numbers=numbers,
        splits=[_section(verdict, rows) for verdict in inspection.splits],
        general=[*(finding.message for finding in inspection.findings), *inspection.doubts()],
        unknown=UNKNOWN,
    )
    text = json.dumps(as_json(inspection, settings), indent=1, ensure_ascii=False)
    with writing_to(out / "check.json"):
        write_text(out / "check.json", text + "\n")
    return path


def _first_findings(verdict: SplitVerdict) -> list[tuple[SplitVerdict, Finding]]:
    """List the errors of a split that are shown: the first `SHOWN` of each kind."""
    counts: Counter[str] = Counter()
    shown = []
    for finding in verdict.findings:
        counts[finding.kind] += 1
        if counts[finding.kind] <= SHOWN:
            shown.append((verdict, finding))
    return shown


def _section(
    verdict: SplitVerdict, rows: dict[tuple[str, str], list[EncodedRow]]
) -> dict[str, Any]:
    """Return the values of a split for the template."""
    summary = split_summary(verdict)
    stats = verdict.stats
    kinds = Counter(finding.kind for finding in verdict.findings)
    return {
        "summary": summary,
        "labels": verdict.split.labels if verdict.split else None,
        "unused": unused_line(summary),
        "pixels": max(1, int(stats.pixels.sum())) if stats else 1,
        "kinds": [
            (
                f"{KINDS.get(kind, kind)} ({number(count)})",
                rows[verdict.which, kind],
                [found.message for found in verdict.findings if found.kind == kind][SHOWN:],
            )
            for kind, count in kinds.most_common()
        ],
    }


def _views(split: Split | None, finding: Finding) -> list[tuple[str, str]]:
    """Draw image and mask of an error, as far as they can be read: (label, data URI) each."""
    if split is None:
        return []
    keys = (index for index in range(len(split)) if split.key(index) == finding.key)
    index = next(keys, None)
    image = None if index is None else split.paths(index)[0]
    if index is None or image is None:
        return []
    reader = reader_of(split)
    views = _view_if_readable(f"image {image.name}", lambda: photograph(reader(image)))
    if finding.other:
        other = Path(finding.other)
        return views + _view_if_readable(
            f"the other, {other.name}", lambda: photograph(reader(other))
        )
    if not isinstance(split, FileSplit):
        return views
    mask = split.masks[index]
    return views + (
        _view_if_readable(f"mask {mask.name}", lambda: _draw_mask(split.mask(index), split.labels))
        or _view_if_readable(f"file {mask.name} as it is", lambda: png(shrunk(read_image(mask))))
    )


def _view_if_readable(label: str, draw: Callable[[], str]) -> list[tuple[str, str]]:
    try:
        return [(label, draw())]
    except DataError:
        return []


def _draw_mask(mask: np.ndarray, labels: LabelSet) -> str:
    """Draw classes in their colours, ignored pixels striped, unknown ids in `UNKNOWN`."""
    small = shrunk(mask)
    image = striped(colourize(small, labels), small, labels)
    image[((small < 0) | (small >= labels.num_classes)) & (small != labels.ignore)] = UNKNOWN
    return png(image)
