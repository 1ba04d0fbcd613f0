"""Read every picture and mask of a split, once before the first step of training and for `seenet data check`."""

import hashlib
import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.files import cache_folder, digest, write_text
from seenet.core.images import image_size, read_header
from seenet.core.labels import LabelSet
from seenet.core.main_guard import check_main_guard
from seenet.core.processes import listed, ranks
from seenet.core.progress import track
from seenet.data.split import FileSplit, Split, size_mismatch

T = TypeVar("T")

BINARY = "looks like a 0/255 mask; set `decode: remap` with `remap: {0: 0, 255: 1}`"
PAIRS_WORTH_A_PROCESS = 100
"""Fewer are read sooner than another process starts."""
OF_A_MASK = ("16-bit", "alpha", "EXIF")
"""What is noted of a mask; grey and palette are how masks are stored."""


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


def read_together(
    indices: Sequence[int], read: Callable[[int], T], what: str | None, *, threads: int, among: Sequence[int] | None = None
) -> dict[int, T]:
    """What `read` gives of each index, by index; every process of the group must call this, and has all of it.

    Args:
        what: stands before the progress bar; None: no bar.
        among: ranks that see the same files, of which this is one, and share `indices`; None: all.

    Raises DataError: what the first of the indices that fail has raised, in all processes.
    """
    rank, world = ranks()
    mates = range(world) if among is None else among
    mine = indices[mates.index(rank) :: len(mates)]
    found: dict[int, T] = {}
    failed: list[tuple[int, DataError]] = []
    with ThreadPoolExecutor(threads) as pool:
        values = pool.map(read, mine)
        try:
            for index, value in zip(mine, track(values, what, len(mine)) if what else values, strict=True):
                found[index] = value
        except DataError as error:
            failed.append((mine[len(found)], error))
    parts = listed([(found, failed)])
    failures = [failure for _, failed in parts for failure in failed]
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]
    return {index: value for mate in mates for index, value in parts[mate][0].items()}


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


@dataclass(frozen=True)
class Finding:
    """Something wrong with a file, or with a whole split (no key). `message`: in one line, as training would say it; `pixels`: how many
    are wrong, where that is counted; `other`: the file that has the same picture.
    """

    split: str
    key: str
    file: str
    kind: str
    message: str
    fix: str
    pixels: int | None = None
    other: str = ""


@dataclass(frozen=True)
class Note:
    """A file that is read otherwise than it is stored, which is no error."""

    split: str
    key: str
    file: str
    note: str


@dataclass(frozen=True)
class Examined:
    """One pair: what is wrong, what is noted, and of what could be read the counts that a summary needs.

    `counts` and `shape` are the mask's; `picture` and `mask` hashes of the decoded pixels; `moments`, exact, of the picture's R, G and B:
    pixels, sums of values and of their squares.
    """

    findings: tuple[Finding, ...]
    notes: tuple[Note, ...]
    counts: dict[int, int] | None
    shape: tuple[int, int]
    picture: str
    mask: str
    moments: tuple[int, list[int], list[int]] | None


def examine(split: Split, index: int) -> Examined:
    """Read a pair as training does, and go on after what is wrong."""
    key = split.key(index)
    pair = read_pair(split, index)
    findings = [finding(split.name, key, path, error) for path, error in pair.problems]
    notes = []
    for path, pixels, wanted in zip(split.paths(index), (pair.image, pair.mask), (None, OF_A_MASK), strict=True):
        if path is not None and pixels is not None:
            notes += [
                Note(split.name, key, str(path), note) for note in read_header(path).notes if wanted is None or note.startswith(wanted)
            ]
    return Examined(
        tuple(findings),
        tuple(notes),
        None if pair.mask is None else pair.counts,
        (0, 0) if pair.mask is None else (pair.mask.shape[0], pair.mask.shape[1]),
        _digest(pair.image),
        _digest(pair.mask),
        None if pair.image is None else _moments(pair.image),
    )


def finding(split: str, key: str, path: Path | str, error: DataError) -> Finding:
    """What the error says, of a file or a split."""
    return Finding(split, key, str(path), error.kind or "data", str(error), error.fix, error.pixels)


def _moments(image: np.ndarray) -> tuple[int, list[int], list[int]]:
    counts = np.array(Image.fromarray(image).histogram(), np.int64).reshape(3, 256)
    values = np.arange(256)
    return image.shape[0] * image.shape[1], (counts @ values).tolist(), (counts @ values**2).tolist()


def _digest(pixels: np.ndarray | None) -> str:
    """Of decoded pixels, so that the same picture in another format or turned by its tag is the same."""
    if pixels is None:
        return ""
    hashed = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(pixels).data)
    return hashed.hexdigest()


def examine_all(split: Split, processes: int | None = None) -> Iterator[Examined]:
    """Every pair, in order, under a bar; by so many processes (None: one a core, fewer for a small split).

    DataError where a process ends by itself, which a fault in a decoder or a full memory may cause.
    """
    wanted = cores() if processes is None else processes
    count = min(wanted, -(-len(split) // PAIRS_WORTH_A_PROCESS))
    what = f"checking {split.name}"
    if count < 2:
        yield from track((examine(split, index) for index in range(len(split))), what, len(split))
        return
    check_main_guard("examine it in one process", "spawn")
    done = 0
    try:
        with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start, (split,)) as pool:
            for examined in track(pool.map(_one, range(len(split)), chunksize=8), what, len(split)):
                yield examined
                done += 1
    except BrokenProcessPool:
        near = split.images[done] if isinstance(split, FileSplit) else split.key(done)
        raise DataError(
            f"{near}: a process that read files ended by itself, at this file or one of the next {8 * count}",
            fix="see whether the memory was full; else take these files out one by one",
            kind="damaged",
        ) from None


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_split: Split


def _start(split: Split) -> None:
    global _split
    _split = split
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits


def _one(index: int) -> Examined:
    return examine(_split, index)
