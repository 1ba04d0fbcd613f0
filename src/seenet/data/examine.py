"""What `seenet data check` learns of one pair of files, and of all pairs of a split, on every core."""

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.images import read_header
from seenet.core.main_guard import check_main_guard
from seenet.core.progress import track
from seenet.data.check import read_pair
from seenet.data.split import FileSplit, Split

PAIRS_WORTH_A_PROCESS = 100
"""Fewer are read sooner than another process starts."""
OF_A_MASK = ("16-bit", "alpha", "EXIF")
"""What is noted of a mask; grey and palette are how masks are stored."""


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
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


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
