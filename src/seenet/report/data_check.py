"""The page of `seenet data check`: of each split what is wrong, with the pictures it is about, and what the split holds."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
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
from seenet.data.split import FileSplit, Split
from seenet.prediction.colours import colourize
from seenet.report.gallery import EncodedRow, striped
from seenet.report.html import number, percent, photograph, png, render, shrunk

SHOWN = 12
"""Errors of one kind in a split that are shown with pictures; the others stand in a list."""
STRANGE = (255, 0, 200)
"""What pixels are painted whose id is neither a class nor ignored; no data set uses it."""
KINDS = {
    "missing": "Missing files", "empty": "Empty files", "format": "No pictures", "damaged": "Damaged files", "animated": "Animated files",
    "large": "Too large", "mask-kind": "Masks of another kind", "ids": "Ids that are no class", "no-entry": "Values without an entry",
    "size": "Sizes that differ", "duplicate": "Pictures that stand twice", "leak": "Pictures in two splits",
    "empty-split": "Nothing to use",
}  # fmt: skip


def refuse_existing(out: Path, *, overwrite: bool) -> None:
    """Raise DataError where a page or its JSON is there already (without `overwrite`)."""
    check_free([out / "index.html", out / "check.json"], overwrite=overwrite)


def write_page(inspection: Inspection, settings: DataSettings, out: Path) -> Path:
    """Write OUT/index.html, one file with everything in it, and OUT/check.json beside it."""
    path = out / "index.html"
    verdict = verdict_line(inspection)
    numbers = [
        (number(len(inspection.errors)), "errors"),
        (number(sum(what == "wrong" for one in inspection.splits for _, what in one.verdicts())), "pairs with errors"),
        (number(sum(len(one.pairs) for one in inspection.splits)), "pairs looked at"),
        (number(len(inspection.notes)), "notes, which are no errors"),
    ]
    total = sum(min(SHOWN, count) for one in inspection.splits for count in Counter(found.kind for found in one.findings).values())
    pictures = track(_all_rows(inspection), "pictures of the errors", total)
    rows: dict[tuple[str, str], list[EncodedRow]] = defaultdict(list)
    for which, kind, row in pictures:
        rows[which, kind].append(row)
    splits = [_section(one, rows) for one in inspection.splits]
    beside = [found.message for found in inspection.findings]
    title = f"Data check: {settings.root.resolve().name if settings.root else settings.kind}"
    render(path, "data_check.html.j2", title=title, verdict=verdict, numbers=numbers, splits=splits, beside=beside, strange=STRANGE)
    with writing_to(out / "check.json"):
        write_text(out / "check.json", json.dumps(as_json(inspection, settings), indent=1, ensure_ascii=False) + "\n")
    return path


def _section(verdict: SplitVerdict, rows: dict[tuple[str, str], list[EncodedRow]]) -> dict[str, Any]:
    summary = split_summary(verdict)
    kinds = Counter(found.kind for found in verdict.findings)
    stats = verdict.stats()
    total = max(1, int(stats.pixels.sum())) if stats else 1
    return {
        "summary": summary,
        "labels": verdict.split.labels if verdict.split else None,
        "unused": unused_line(summary),
        "classes": [
            (entry, verdict.split.labels.colours[entry["id"]], percent(entry["pixels"] / total), number(entry["pixels"]))
            for entry in summary.get("classes", ())
            if verdict.split
        ],
        "strange": [(label, number(found["pixels"]), number(found["masks"])) for label, found in summary.get("strange_ids", {}).items()],
        "kinds": [
            (
                f"{KINDS.get(kind, kind)} ({number(count)})",
                rows[verdict.which, kind],
                [found.message for found in verdict.findings if found.kind == kind][SHOWN:],
            )
            for kind, count in kinds.most_common()
        ],
    }


def _all_rows(inspection: Inspection) -> Iterator[tuple[str, str, EncodedRow]]:
    """Yield (split, kind, row) of the first errors of each kind."""
    for verdict in inspection.splits:
        shown: Counter[str] = Counter()
        places = {verdict.split.key(index): index for index in range(len(verdict.pairs))} if verdict.split else {}
        for found in verdict.findings:
            shown[found.kind] += 1
            if shown[found.kind] <= SHOWN:
                yield verdict.which, found.kind, EncodedRow(found.message, _views(verdict.split, places.get(found.key), found), [])


def _views(split: Split | None, index: int | None, found: Finding) -> list[tuple[str, str]]:
    """Draw what can be seen of the pair an error is about, which may be nothing."""
    image = split.paths(index)[0] if split is not None and index is not None else None
    if split is None or index is None or image is None:
        return []
    views = _attempt(f"picture {image.name}", lambda: photograph(read_image(image)))
    if found.other:
        other = Path(found.other)
        return views + _attempt(f"the other, {other.name}", lambda: photograph(read_image(other)))
    if not isinstance(split, FileSplit):
        return views
    mask = split.masks[index]
    ids = _attempt(f"mask {mask.name}", lambda: _mask_view(split.mask(index), split.labels))
    return views + (ids or _attempt(f"file {mask.name} as it is", lambda: png(shrunk(read_image(mask)))))


def _attempt(label: str, draw: Callable[[], str]) -> list[tuple[str, str]]:
    try:
        return [(label, draw())]
    except DataError:
        return []


def _mask_view(mask: np.ndarray, labels: LabelSet) -> str:
    """Draw the classes in their colours, stripes where ignored, `STRANGE` where an id is neither."""
    small = shrunk(mask)
    picture = striped(colourize(small, labels), small, labels)
    picture[((small < 0) | (small >= labels.num_classes)) & (small != labels.ignore)] = STRANGE
    return png(picture)
