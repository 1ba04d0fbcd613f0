"""Every label id of a split is looked at before the first step, once."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from seenet.core.errors import DataError
from seenet.core.files import cache_folder, digest, write_text
from seenet.core.images import image_size
from seenet.core.labels import LabelSet
from seenet.core.processes import listed, ranks
from seenet.data.split import FileSplit, Split, size_mismatch
from seenet.data.together import read_together

T = TypeVar("T")

BINARY = "looks like a 0/255 mask; set `decode: remap` with `remap: {0: 0, 255: 1}`"


@dataclass(frozen=True)
class Pair:
    """A picture and its mask as read; None, and no counts, where one could not be. `problems`: each file's in turn, with the file."""

    image: np.ndarray | None
    mask: np.ndarray | None
    counts: dict[int, int]
    problems: tuple[tuple[Path, DataError], ...]


def read_pair(split: Split, index: int) -> Pair:
    """Read a pair and go on after what is wrong: the one reading of training, which stops there, and of `seenet data check`."""
    if not isinstance(split, FileSplit):
        return _read_drawn(split, index)
    problems = split.missing(index)
    complete = not problems
    image_path, mask_path = split.paths(index)

    def attempt(path: Path, read: Callable[[], T]) -> T | None:
        try:
            return read() if complete or path.is_file() else None
        except DataError as error:
            problems.append((path, error))
            return None

    mask = attempt(mask_path, lambda: split.mask(index))
    counts = {} if mask is None else count_ids(mask)
    attempt(mask_path, lambda: refuse_ids(counts, split.labels, mask_path))
    image = attempt(image_path, lambda: split.image(index))  # a picture that ends too early is found by decoding alone
    shape = _shape(mask_path) if mask is None else mask.shape
    if image is not None and shape is not None and image.shape[:2] != shape:
        problems.append((mask_path, size_mismatch(image_path, image.shape[:2], mask_path, shape)))
    return Pair(image, mask, counts, tuple(problems))


def _shape(path: Path) -> tuple[int, ...] | None:
    """Of a mask that is not decoded as declared, where its header tells."""
    try:
        return image_size(path)
    except DataError:
        return None


def _read_drawn(split: Split, index: int) -> Pair:
    """A pair whose mask is drawn."""
    path = split.paths(index)[0] or Path(split.key(index))
    try:
        image, mask = split.read(index)
        return Pair(image, mask, check_ids(mask, split.labels, path), ())
    except DataError as error:
        return Pair(None, None, {}, ((path, error),))


def check_split(split: FileSplit, *, threads: int = 2) -> list[dict[int, int]]:
    """Pixels of each id in each mask of the split, in its order.

    DataError for the first picture or mask that cannot be read, mask of another size than its picture, or id that is neither a class
    nor ignored; the ids, their pixel counts and the likely cause are said. What was found good is remembered with its counts by path,
    size and time of both files, so that a resume does not look again. Processes of a group that see the same files each look at a part
    of what one of them does not remember; every process of the group must call this, and raises the same error.
    """
    store = _store(split)
    known = _remembered(store)
    # Taken before the files are read: what changes meanwhile is looked at again.
    stamps = [split.stamp(index) for index in range(len(split))]
    missing = [index for index, stamp in enumerate(stamps) if stamp not in known]
    everyone = listed([(digest(*stamps), missing)])
    same = [rank for rank, (files, _) in enumerate(everyone) if files == everyone[ranks()[0]][0]]
    todo = sorted({index for rank in same for index in everyone[rank][1]})
    if not any(others for _, others in everyone):
        return [known[stamp] for stamp in stamps]

    def one(index: int) -> dict[int, int]:
        pair = read_pair(split, index)
        for _, error in pair.problems:
            raise error
        return pair.counts

    for index, counts in read_together(todo, one, f"checking {split.name}", threads=threads, among=same).items():
        known[stamps[index]] = counts
    try:
        write_text(store, json.dumps(known, sort_keys=True))
    except OSError as error:
        logging.getLogger("seenet").info("%s: cannot be written (%s); the data will be checked again next time", store, error)
    return [known[stamp] for stamp in stamps]


def no_class(masks: int, labels: LabelSet) -> str:
    """What is wrong where no pixel of so many masks has a class."""
    return f"no pixel of {masks} masks has a class, all are {labels.ignore}; is that what to ignore?"


def count_ids(mask: np.ndarray) -> dict[int, int]:
    """Pixels of each id that a mask holds, by id."""
    if mask.dtype == np.uint8:
        counts = np.bincount(mask.ravel())
        return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
    labels, pixels = np.unique(mask, return_counts=True)
    return dict(zip(labels.tolist(), pixels.tolist(), strict=True))


def check_ids(mask: np.ndarray, labels: LabelSet, path: Path) -> dict[int, int]:
    """Pixels of each id; DataError as `refuse_ids`."""
    found = count_ids(mask)
    refuse_ids(found, labels, path)
    return found


def strange_ids(counts: dict[int, int], labels: LabelSet) -> dict[int, int]:
    """Of the ids those that are neither a class nor ignored."""
    return {label: pixels for label, pixels in counts.items() if not (0 <= label < labels.num_classes or label == labels.ignore)}


def refuse_ids(counts: dict[int, int], labels: LabelSet, path: Path) -> None:
    """DataError naming ids and pixel counts where a mask, counted, holds ids outside the label set."""
    wrong = strange_ids(counts, labels)
    if not wrong:
        return
    listed = ", ".join(f"{label} ({pixels} pixels)" for label, pixels in list(wrong.items())[:6]) + (", ..." if len(wrong) > 6 else "")
    kind, fix = likely_cause(set(counts), labels)
    raise DataError(
        f"{path}: ids {listed} are neither one of {labels.num_classes} classes (0 to {labels.num_classes - 1}) nor ignored "
        f"({labels.ignore})",
        fix="JPEG blurs ids; save masks as PNG" if path.suffix.lower() in {".jpg", ".jpeg"} else fix,
        kind=kind,
        pixels=sum(wrong.values()),
    )


def likely_cause(ids: set[int], labels: LabelSet) -> tuple[str, str]:
    """Kind of error (`mask-kind`, `ids`) and what would fix it, where masks hold these ids."""
    if labels.name == "cityscapes19" and ids <= set(range(34)) | {255}:
        return "mask-kind", "looks like labelIds; set data.ids=labelIds"
    if labels.name != "folder":
        return "ids", f"masks of {labels.name} hold no others; another data set's, or masks of your own (data.kind=folder)?"
    if labels.num_classes == 19 and ids <= set(range(34)) | {255}:
        return "mask-kind", "looks like Cityscapes' labelIds; use data.kind=cityscapes, or set `decode: remap`"
    if ids <= {0, 255}:
        return "mask-kind", BINARY
    if max(ids) == labels.num_classes and labels.num_classes not in {labels.ignore}:
        return (
            "ids",
            f"looks like ids counted from 1, or void as {labels.num_classes}; set `decode: remap`, or `ignore: {labels.num_classes}`",
        )
    if 255 in ids and labels.ignore != 255:
        return "ids", "looks like void as 255; set `ignore: 255`"
    return "ids", "add the classes, set `ignore`, or map ids with `decode: remap`"


def _remembered(store: Path) -> dict[str, dict[int, int]]:
    """What earlier checks found good; nothing where the file cannot be read or is of another version."""
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
        return {str(stamp): {int(label): int(pixels) for label, pixels in counts.items()} for stamp, counts in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _store(split: FileSplit) -> Path:
    name = digest(split.name, str(split.images[0].resolve().parent))[:16]
    return cache_folder() / f"checked-{name}.json"
