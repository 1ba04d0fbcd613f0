"""Every label id of a split is looked at before the first step, once."""

import hashlib
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from seenet.core.errors import DataError
from seenet.core.files import write_text
from seenet.core.labels import LabelSet
from seenet.core.progress import track
from seenet.data.split import FileSplit


def check_split(split: FileSplit, *, threads: int = 2) -> list[dict[int, int]]:
    """Pixels of each id in each mask of the split, in its order.

    DataError for the first picture or mask that cannot be read, mask of another size than its picture, or id that is neither a class
    nor ignored; the ids, their pixel counts and the likely cause are said. What was found good is remembered with its counts by path,
    size and time of both files, so that a resume does not look again.
    """
    store = _store(split)
    known = _remembered(store)
    # Taken before the files are read: what changes meanwhile is looked at again.
    stamps = [split.stamp(index) for index in range(len(split))]
    todo = [index for index, stamp in enumerate(stamps) if stamp not in known]
    if not todo:
        return [known[stamp] for stamp in stamps]

    def one(index: int) -> dict[int, int]:
        split.check_sizes(index)
        counts = check_ids(split.mask(index), split.labels, split.masks[index])
        split.image(index)  # a picture that ends too early is found by decoding alone
        return counts

    with ThreadPoolExecutor(threads) as pool:
        for index, counts in zip(todo, track(pool.map(one, todo), f"checking {split.name}", len(todo)), strict=True):
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
    """Pixels of each id; DataError naming ids and pixel counts where a mask holds ids outside the label set."""
    found = count_ids(mask)
    wrong = {label: pixels for label, pixels in found.items() if not (0 <= label < labels.num_classes or label == labels.ignore)}
    if not wrong:
        return found
    listed = ", ".join(f"{label} ({pixels} pixels)" for label, pixels in list(wrong.items())[:6]) + (", ..." if len(wrong) > 6 else "")
    raise DataError(
        f"{path}: ids {listed} are neither one of {labels.num_classes} classes (0 to {labels.num_classes - 1}) nor ignored "
        f"({labels.ignore}); {_cause(set(found), labels)}"
    )


def _cause(ids: set[int], labels: LabelSet) -> str:
    if labels.name == "cityscapes19" and ids <= set(range(34)) | {255}:
        return "looks like labelIds; set data.ids=labelIds"
    if labels.name != "folder":
        return f"masks of {labels.name} hold no others; another data set's, or masks of your own (data.kind=folder)?"
    if labels.num_classes == 19 and ids <= set(range(34)) | {255}:
        return "looks like Cityscapes' labelIds; use data.kind=cityscapes, or set `decode: remap`"
    if ids <= {0, 255}:
        return "looks like a 0/255 mask; set `decode: remap` with `remap: {0: 0, 255: 1}`"
    if max(ids) == labels.num_classes and labels.num_classes not in {labels.ignore}:
        return f"looks like ids counted from 1, or void as {labels.num_classes}; set `decode: remap`, or `ignore: {labels.num_classes}`"
    if 255 in ids and labels.ignore != 255:
        return "looks like void as 255; set `ignore: 255`"
    return "add the classes, set `ignore`, or map ids with `decode: remap`"


def _remembered(store: Path) -> dict[str, dict[int, int]]:
    """What earlier checks found good; nothing where the file cannot be read or is of another version."""
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
        return {str(stamp): {int(label): int(pixels) for label, pixels in counts.items()} for stamp, counts in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _store(split: FileSplit) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seenet"
    name = hashlib.sha256(f"{split.name}|{split.images[0].resolve().parent}".encode()).hexdigest()[:16]
    return cache / f"checked-{name}.json"
