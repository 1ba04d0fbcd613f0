"""Read every image and mask of a split, before training and for `seenet data check`.

`read_pair` reads one pair. `check_split` is for training: it raises the first error, caches which
files are good, and shares the work among ranks. `examine_all` is for `seenet data check`: it goes
on after errors and keeps what a summary needs.
"""

import hashlib
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import numpy as np

from seenet.core.errors import DataError
from seenet.core.files import cache_folder, digest, write_cache
from seenet.core.images import DEEP, highest_value, image_size, read_header
from seenet.core.main_guard import check_main_guard
from seenet.core.processor import cores
from seenet.core.progress import track
from seenet.data.check.edges import meets
from seenet.data.check.stats import (
    ChannelStats,
    Counted,
    Moments,
    SplitStats,
    channel_mean_and_std,
    check_ids,
    count_ids,
    gather,
    moments_of,
    refuse_ids,
)
from seenet.data.split import FileSplit, Split, reader_of, size_mismatch
from seenet.distributed import all_gather, rank_and_world

T = TypeVar("T")

THREADS = 2
"""Threads of each rank that read files."""
PAIRS_PER_PROCESS = 100
"""Pairs that are worth the start of another process."""
MASK_NOTES = ("16-bit", "alpha", "EXIF")
"""Notes that are kept for a mask; grey and palette are how masks are stored."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask as read; None, and no counts, for what could not be read.

    `problems`: files with an error, in the order found. `inexact`: pixels of the mask that went to
    the nearest class.
    """

    image: np.ndarray | None
    mask: np.ndarray | None
    counts: dict[int, int]
    problems: tuple[tuple[Path, DataError], ...]
    inexact: int = 0


def read_pair(split: Split, index: int) -> Pair:
    """Read an image and its mask, and collect the errors of both."""
    if not isinstance(split, FileSplit):
        return _read_drawn(split, index)
    problems = split.missing(index)
    image_path, mask_path = split.paths(index)

    def attempt(path: Path, read: Callable[[], T]) -> T | None:
        try:
            return read() if path.is_file() else None
        except DataError as error:
            problems.append((path, error))
            return None

    found = attempt(mask_path, lambda: split.decoded(index))
    mask, inexact = found or (None, 0)
    counts = {} if mask is None else count_ids(mask)
    attempt(mask_path, lambda: refuse_ids(counts, split.labels, mask_path))
    # The whole image, since only that finds a truncated file.
    image = attempt(image_path, lambda: split.image(index))
    shape = None if mask is None else mask.shape
    if mask is None:
        with suppress(DataError):
            shape = image_size(mask_path)
    if image is not None and shape is not None and image.shape[:2] != shape:
        problems.append((mask_path, size_mismatch(image_path, image.shape[:2], mask_path, shape)))
    return Pair(image, mask, counts, tuple(problems), inexact)


def _read_drawn(split: Split, index: int) -> Pair:
    """Read a pair whose mask is drawn."""
    path = split.paths(index)[0] or Path(split.key(index))
    try:
        image, mask = split.read(index)
        return Pair(image, mask, check_ids(mask, split.labels, path), ())
    except DataError as error:
        return Pair(None, None, {}, ((path, error),))


# The check before training


def check_split(split: FileSplit) -> list[dict[int, int]]:
    """Return the pixels of each id in each mask of a split, in its order.

    Good pairs are cached with their counts by path, size and time of both files, so that a resume
    does not read them again. Ranks that see the same files share those that are not cached.

    Raises:
        DataError: an image or mask that cannot be read, a mask of another size than its image, or
            ids that are neither a class nor ignored. Every rank must call this, and all raise the
            same error.
    """
    where = digest(split.name, str(split.images[0].resolve().parent))[:16]
    cache = cache_folder() / f"checked-{where}.json"
    known = _read_cache(cache)
    # Before the files are read, so that a file that changes meanwhile is read again next time.
    stamps = [split.stamp(index) for index in range(len(split))]
    missing = [index for index, stamp in enumerate(stamps) if stamp not in known]
    everyone = all_gather([(digest(*stamps), missing)])
    own_files = everyone[rank_and_world()[0]][0]
    same = [rank for rank, (files, _) in enumerate(everyone) if files == own_files]
    todo = sorted({index for rank in same for index in everyone[rank][1]})
    if not any(others for _, others in everyone):
        return [known[stamp] for stamp in stamps]

    def counts_of(index: int) -> dict[int, int]:
        pair = read_pair(split, index)
        for _, error in pair.problems:
            raise error
        return pair.counts

    found = map_across_ranks(todo, counts_of, f"checking {split.name}", ranks=same)
    known |= {stamps[index]: counts for index, counts in found.items()}
    write_cache(cache, known)
    return [known[stamp] for stamp in stamps]


def map_across_ranks(
    indices: Sequence[int],
    read: Callable[[int], T],
    what: str | None,
    *,
    ranks: Sequence[int] | None = None,
) -> dict[int, T]:
    """Call `read` once per index, shared among ranks, and give all of them all results.

    Every rank must call this, also those that are not in `ranks`.

    Args:
        indices: the same in all of `ranks`.
        read: called in threads for this rank's share of the indices.
        what: description of the progress bar; None: no bar.
        ranks: ranks that share `indices`, including this one; None: all.

    Raises:
        DataError: the error of the first index that fails, in all ranks.
    """
    rank, world = rank_and_world()
    members = range(world) if ranks is None else ranks
    mine = indices[members.index(rank) :: len(members)]
    found: dict[int, T] = {}
    failed: list[tuple[int, DataError]] = []
    with ThreadPoolExecutor(THREADS) as pool:
        values = pool.map(read, mine)
        try:
            for index, value in zip(
                mine, track(values, what, len(mine)) if what else values, strict=True
            ):
                found[index] = value
        except DataError as error:
            failed.append((mine[len(found)], error))
    results = all_gather([(found, failed)])
    failures = [failure for _, failed in results for failure in failed]
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]
    return {index: value for member in members for index, value in results[member][0].items()}


def _read_cache(path: Path) -> dict[str, dict[int, int]]:
    """Return the counts of good pairs by stamp; empty if the file is missing or damaged."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(stamp): {int(label): int(pixels) for label, pixels in counts.items()}
            for stamp, counts in known.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


# Class statistics


def split_stats(split: Split) -> SplitStats:
    """Count the classes of a split; for files with the cached counts of `check_split`.

    Raises:
        DataError: as `check_split`. Every rank must call this.
    """
    indices = range(len(split))
    if isinstance(split, FileSplit):
        # Sizes come from headers, so that masks with cached counts are not decoded.
        counts, masks = check_split(split), split.masks
        sizes = map_across_ranks(indices, lambda index: image_size(masks[index]), None)
        return gather(split.labels, zip(counts, (sizes[index] for index in indices), strict=True))

    def count(index: int) -> Counted:
        mask = split.read(index)[1]
        counts = check_ids(mask, split.labels, Path(split.key(index)))
        return counts, (mask.shape[0], mask.shape[1])

    found = map_across_ranks(indices, count, f"counting {split.name}")
    return gather(split.labels, (found[index] for index in indices))


def channel_stats(split: Split) -> ChannelStats:
    """Return mean and deviation of each channel over all pictures; collective."""
    indices = range(len(split))
    found = map_across_ranks(
        indices, lambda index: moments_of(split.image(index)), f"reading {split.name}"
    )
    return channel_mean_and_std([found[index] for index in indices])


# `seenet data check`


class Problem(NamedTuple):
    """Content of a DataError about a file, without the arrays that its traceback keeps alive."""

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
    """Result of examining a pair.

    Attributes:
        problems: errors of its files.
        notes: (file, note) of what decoding converts.
        counts: pixels of each id in the mask; None if it cannot be read.
        shape: height and width of the mask.
        image_hash, mask_hash: hashes of the decoded pixels; "" for what cannot be read.
        moments: of the image's channels: number of pixels, sums of values, sums of squares.
        highest: largest value of a grey image of 16 bits that is dark; None for others.
        inexact: pixels of the mask whose value is that of no class, which went to the nearest.
        meets: whether its edges are those of the image (`edges.meets`).
    """

    problems: tuple[Problem, ...]
    notes: tuple[tuple[str, str], ...]
    counts: dict[int, int] | None
    shape: tuple[int, int]
    image_hash: str
    mask_hash: str
    moments: Moments | None
    highest: int | None = None
    inexact: int = 0
    meets: bool | None = None


def examine(split: Split, index: int) -> Examined:
    """Read a pair as training does, and go on after errors."""
    pair = read_pair(split, index)
    image, mask = pair.image, pair.mask
    notes: list[tuple[str, str]] = []
    image_path = split.paths(index)[0]
    for path, pixels, kept in zip(
        split.paths(index), (image, mask), (("",), MASK_NOTES), strict=True
    ):
        if path is not None and pixels is not None:
            with suppress(DataError):  # of bands, which have nothing to note
                found = read_header(path).notes
                notes += [(str(path), note) for note in found if note.startswith(kept)]
    reader = reader_of(split)
    deep = reader.channels is reader.value_range is None and (str(image_path), "16-bit") in notes
    # Decoded again only if it is dark: 64 is what `DEEP` becomes in 8 bits.
    dark = deep and image is not None and int(image.max()) <= DEEP // 256
    return Examined(
        tuple(Problem.of(path, error) for path, error in pair.problems),
        tuple(notes),
        None if mask is None else pair.counts,
        (0, 0) if mask is None else (mask.shape[0], mask.shape[1]),
        _pixel_hash(image),
        _pixel_hash(mask),
        None if image is None else moments_of(image),
        highest_value(image_path) if image_path is not None and dark else None,
        pair.inexact,
        None if pair.problems or image is None or mask is None else meets(image, mask),
    )


def _pixel_hash(pixels: np.ndarray | None) -> str:
    """Hash decoded pixels, so that the same image in another format has the same hash."""
    if pixels is None:
        return ""
    hashed = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(pixels).data)
    return hashed.hexdigest()


def examine_all(split: Split, processes: int | None = None) -> Iterator[Examined]:
    """Examine every pair in order, and show progress.

    Args:
        split: any split.
        processes: at most so many; None: one per core. A small split gets fewer.

    Raises:
        DataError: a process died, from a fault in a decoder or from lack of memory.
    """
    wanted = cores() if processes is None else processes
    count = min(wanted, -(-len(split) // PAIRS_PER_PROCESS))
    what = f"checking {split.name}"
    if count < 2:
        yield from track((examine(split, index) for index in range(len(split))), what, len(split))
        return
    check_main_guard("examine it in one process", "spawn")
    done = 0
    try:
        with ProcessPoolExecutor(
            count, multiprocessing.get_context("spawn"), _start_worker, (split,)
        ) as pool:
            results = pool.map(_examine_in_worker, range(len(split)), chunksize=8)
            for examined in track(results, what, len(split)):
                yield examined
                done += 1
    except BrokenProcessPool:
        near = split.images[done] if isinstance(split, FileSplit) else split.key(done)
        raise DataError(
            f"{near}: a process died while it read this file or one of the next {8 * count}",
            fix="see whether memory ran out; else take these files out one by one",
            kind="damaged",
        ) from None


_worker_split: Split


def _start_worker(split: Split) -> None:
    global _worker_split
    _worker_split = split
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C


def _examine_in_worker(index: int) -> Examined:
    return examine(_worker_split, index)
