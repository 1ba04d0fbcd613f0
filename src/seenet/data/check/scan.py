"""Read every picture and mask of a split: before the first step of training, and for `data check`.

`read_pair` is the one reading of both. `check_split` is training's door: it stops at the first
error, remembers what was good and shares the work among the processes of a group. `examine_all`
is `seenet data check`: it goes on after errors and keeps what a summary needs.
"""

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
from typing import NamedTuple, Self, TypeVar

import numpy as np
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.files import cache_folder, digest, write_text
from seenet.core.images import image_size, read_header
from seenet.core.main_guard import check_main_guard
from seenet.core.progress import track
from seenet.data.check.stats import Counted, SplitStats, check_ids, count_ids, gather, refuse_ids
from seenet.data.split import FileSplit, Split, size_mismatch
from seenet.distributed import all_gather, rank_and_world

T = TypeVar("T")

PAIRS_WORTH_A_PROCESS = 100
"""Fewer are read sooner than another process starts."""
NOTED_OF_MASKS = ("16-bit", "alpha", "EXIF")
"""What is noted of a mask; grey and palette are how masks are stored."""


@dataclass(frozen=True)
class Pair:
    """A picture and its mask as read; None, and no counts, where one could not be.

    `problems`: files in which something is wrong, in turn, and what.
    """

    image: np.ndarray | None
    mask: np.ndarray | None
    counts: dict[int, int]
    problems: tuple[tuple[Path, DataError], ...]


def read_pair(split: Split, index: int) -> Pair:
    """Read a picture and its mask, and go on after what is wrong with either."""
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
    # Decoded too: a picture that ends too early is found by that alone.
    image = attempt(image_path, lambda: split.image(index))
    shape = _header_size(mask_path) if mask is None else mask.shape
    if image is not None and shape is not None and image.shape[:2] != shape:
        problems.append((mask_path, size_mismatch(image_path, image.shape[:2], mask_path, shape)))
    return Pair(image, mask, counts, tuple(problems))


def _header_size(path: Path) -> tuple[int, ...] | None:
    """Return the size of a mask that is not decoded as declared, where its header tells."""
    try:
        return image_size(path)
    except DataError:
        return None


def _read_drawn(split: Split, index: int) -> Pair:
    """Read a pair whose mask is drawn."""
    path = split.paths(index)[0] or Path(split.key(index))
    try:
        image, mask = split.read(index)
        return Pair(image, mask, check_ids(mask, split.labels, path), ())
    except DataError as error:
        return Pair(None, None, {}, ((path, error),))


# Training's door


def check_split(split: FileSplit, *, threads: int = 2) -> list[dict[int, int]]:
    """Count the pixels of each id in each mask of a split; refuse the first error.

    What was found good is remembered with its counts by path, size and time of both files, so
    that a resume does not look again. Processes of a group that see the same files each look at
    a part of what one of them does not remember.

    Returns:
        Pixels by id of each mask, in the order of the split.

    Raises:
        DataError: a picture or mask that cannot be read, a mask of another size than its
            picture, or ids that are neither a class nor ignored. Every process of the group must
            call this, and raises the same error.
    """
    store = _store(split)
    known = _remembered(store)
    # Taken before the files are read: what changes meanwhile is looked at again.
    stamps = [split.stamp(index) for index in range(len(split))]
    missing = [index for index, stamp in enumerate(stamps) if stamp not in known]
    everyone = all_gather([(digest(*stamps), missing)])
    same = [rank for rank, (files, _) in enumerate(everyone) if files == everyone[rank_and_world()[0]][0]]
    todo = sorted({index for rank in same for index in everyone[rank][1]})
    if not any(others for _, others in everyone):
        return [known[stamp] for stamp in stamps]

    def counts_of(index: int) -> dict[int, int]:
        pair = read_pair(split, index)
        for _, error in pair.problems:
            raise error
        return pair.counts

    what = f"checking {split.name}"
    found = map_across_ranks(todo, counts_of, what, threads=threads, among=same)
    known |= {stamps[index]: counts for index, counts in found.items()}
    try:
        write_text(store, json.dumps(known, sort_keys=True))
    except OSError as error:
        log = logging.getLogger("seenet")
        log.info("%s: cannot be written (%s); the data will be checked again", store, error)
    return [known[stamp] for stamp in stamps]


def map_across_ranks(
    indices: Sequence[int],
    read: Callable[[int], T],
    what: str | None,
    *,
    threads: int,
    among: Sequence[int] | None = None,
) -> dict[int, T]:
    """Call `read` once per index, shared among the processes of a group; give all of them all.

    Args:
        indices: samples, the same in all processes of `among`.
        read: called in threads of this process for its part of the indices.
        what: stands before the progress bar; None: no bar.
        threads: threads of each process.
        among: ranks that share `indices`, of which this is one; None: all.

    Raises:
        DataError: what the first of the indices that fail has raised, in all processes. Every
            process of the group must call this.
    """
    rank, world = rank_and_world()
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
    parts = all_gather([(found, failed)])
    failures = [failure for _, failed in parts for failure in failed]
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]
    return {index: value for mate in mates for index, value in parts[mate][0].items()}


def _remembered(store: Path) -> dict[str, dict[int, int]]:
    """Read what earlier checks found good; nothing where the file is damaged or another version."""
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
        return {str(stamp): {int(label): int(pixels) for label, pixels in counts.items()} for stamp, counts in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _store(split: FileSplit) -> Path:
    name = digest(split.name, str(split.images[0].resolve().parent))[:16]
    return cache_folder() / f"checked-{name}.json"


# Class statistics


def split_stats(split: Split, *, threads: int = 2) -> SplitStats:
    """Count the classes of a split.

    Of files this is what `check_split` counts or remembers; drawn scenes are drawn.

    Raises:
        DataError: as `check_split`. Every process of a group must call this.
    """
    indices = range(len(split))
    if isinstance(split, FileSplit):
        # From headers: a mask that the check remembers is not decoded.
        counts = check_split(split, threads=threads)
        masks = split.masks
        sizes = map_across_ranks(indices, lambda index: image_size(masks[index]), None, threads=threads)
        return gather(split.labels, zip(counts, (sizes[index] for index in indices), strict=True))

    def count(index: int) -> Counted:
        mask = split.read(index)[1]
        counts = check_ids(mask, split.labels, Path(split.key(index)))
        return counts, (mask.shape[0], mask.shape[1])

    found = map_across_ranks(indices, count, f"counting {split.name}", threads=threads)
    return gather(split.labels, (found[index] for index in indices))


# `seenet data check`


class Problem(NamedTuple):
    """What a DataError says of a file, without the pixels that its traceback keeps alive."""

    file: str
    kind: str
    message: str
    fix: str
    pixels: int | None

    @classmethod
    def of(cls, path: Path | str, error: DataError) -> Self:
        return cls(str(path), error.kind or "data", str(error), error.fix, error.pixels)


@dataclass(frozen=True)
class Examined:
    """What is kept of a pair: what is wrong, what is noted of which file, counts for a summary.

    `counts` and `shape` are the mask's; `picture` and `mask` hashes of the decoded pixels;
    `moments`, exact, of the picture's R, G and B: pixels, sums of values and of their squares.
    """

    problems: tuple[Problem, ...]
    notes: tuple[tuple[str, str], ...]
    counts: dict[int, int] | None
    shape: tuple[int, int]
    picture: str
    mask: str
    moments: tuple[int, list[int], list[int]] | None


def examine(split: Split, index: int) -> Examined:
    """Read a pair as training does, and go on after what is wrong."""
    pair = read_pair(split, index)
    notes: list[tuple[str, str]] = []
    for path, pixels, noted in zip(split.paths(index), (pair.image, pair.mask), (("",), NOTED_OF_MASKS), strict=True):
        if path is not None and pixels is not None:
            of_file = read_header(path).notes
            notes += [(str(path), note) for note in of_file if note.startswith(noted)]
    return Examined(
        tuple(Problem.of(path, error) for path, error in pair.problems),
        tuple(notes),
        None if pair.mask is None else pair.counts,
        (0, 0) if pair.mask is None else (pair.mask.shape[0], pair.mask.shape[1]),
        _pixel_hash(pair.image),
        _pixel_hash(pair.mask),
        None if pair.image is None else _moments(pair.image),
    )


def _moments(image: np.ndarray) -> tuple[int, list[int], list[int]]:
    counts = np.array(Image.fromarray(image).histogram(), np.int64).reshape(3, 256)
    values = np.arange(256)
    return image.shape[0] * image.shape[1], (counts @ values).tolist(), (counts @ values**2).tolist()


def _pixel_hash(pixels: np.ndarray | None) -> str:
    """Hash decoded pixels: a picture in another format, or turned by its tag, is the same."""
    if pixels is None:
        return ""
    hashed = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(pixels).data)
    return hashed.hexdigest()


def examine_all(split: Split, processes: int | None = None) -> Iterator[Examined]:
    """Examine every pair, in order, under a bar.

    Args:
        split: any split.
        processes: None: one a core, fewer for a small split.

    Raises:
        DataError: a process ended by itself, by a fault in a decoder or a full memory.
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
        with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start_worker, (split,)) as pool:
            for examined in track(pool.map(_examine_in_worker, range(len(split)), chunksize=8), what, len(split)):
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
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_worker_split: Split


def _start_worker(split: Split) -> None:
    global _worker_split
    _worker_split = split
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits


def _examine_in_worker(index: int) -> Examined:
    return examine(_worker_split, index)
