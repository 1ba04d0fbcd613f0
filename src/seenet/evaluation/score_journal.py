"""Score journal: the counts of an evaluation in progress, so that an interrupted one continues.

One file per rank: a line of JSON that identifies the evaluation (`key`), then records that are only
appended. A record is its length and CRC-32, a SHA-256 of the files that the image's counts depend
on, and the counts as `pack` writes them. A record that a kill cut short fails the CRC and is
dropped.
"""

import hashlib
import json
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from seenet.core.files import digest, writing_to
from seenet.core.locks import locked
from seenet.evaluation.confusion import ImageScore

log = logging.getLogger("seenet")

FORMAT = 1
"""Version of the counts; raised when the same images are counted differently."""
HEAD = struct.Struct("<II")
STAMP_BYTES = hashlib.sha256().digest_size
FIX = "make room or give another --out; the same command continues"


@dataclass
class ScoreJournal:
    """Open journal: `scores` of all ranks and earlier calls, by stamp; `add` appends one more."""

    scores: dict[bytes, ImageScore]
    path: Path
    stream: FileIO

    def add(self, stamp: bytes, score: ImageScore) -> None:
        """Append the counts of one image.

        Raises:
            DataError: the disk is full.
        """
        payload = stamp + pack(score).astype("<i8").tobytes()
        with writing_to(self.path, FIX):
            _append(self.stream, HEAD.pack(len(payload), zlib.crc32(payload)) + payload)


def stamp_of(*parts: str) -> bytes:
    """Hash the files that the counts of an image depend on (SHA-256)."""
    return bytes.fromhex(digest(*parts))


@contextmanager
def open_journal(folder: Path, key: dict[str, Any], rank: int = 0) -> Iterator[ScoreJournal]:
    """Read the records of the evaluation `key` from the files of all ranks; write to this rank's.

    A file of this rank with another key is started anew, with a line in the log.

    Raises:
        BusyError: another process writes this rank's file.
        DataError: the folder cannot be written.
    """
    path = folder / f"rank-{rank}"
    line = json.dumps(key, sort_keys=True).encode() + b"\n"
    with writing_to(path, FIX):
        folder.mkdir(parents=True, exist_ok=True)
        # Unbuffered, so that closing it after an error writes nothing.
        stream = FileIO(path, "a")
    busy = f"{path}: another process evaluates into this folder; wait for it or give another --out"
    with stream, locked(stream.fileno(), busy=busy):
        scores: dict[bytes, ImageScore] = {}
        ends = {}
        for file in folder.glob("rank-*"):
            found, ends[file] = read_records(file.read_bytes(), line)
            scores |= found
        if not ends[path] and path.stat().st_size:
            log.info("%s: counts with another model, data, settings or machine: new start", path)
        with writing_to(path, FIX):
            stream.truncate(ends[path])
            if not ends[path]:
                _append(stream, line)
        yield ScoreJournal(scores, path, stream)


def read_records(content: bytes, line: bytes) -> tuple[dict[bytes, ImageScore], int]:
    """Read the records after the first line up to the first damaged one.

    Returns:
        The scores by stamp, and the end of the last good record; none and 0 where the first line is
        not `line`.
    """
    scores: dict[bytes, ImageScore] = {}
    if not content.startswith(line):
        return scores, 0
    start = len(line)
    while start + HEAD.size <= len(content):
        length, crc = HEAD.unpack_from(content, start)
        payload = content[start + HEAD.size : start + HEAD.size + length]
        if length < STAMP_BYTES or len(payload) < length or zlib.crc32(payload) != crc:
            break
        scores[payload[:STAMP_BYTES]] = unpack(np.frombuffer(payload[STAMP_BYTES:], "<i8"))
        start += HEAD.size + length
    return scores, start


def pack(score: ImageScore) -> np.ndarray:
    """Return a score as one int64 array.

    It holds index, has_boundary, the bits of the loss, the number of arrays that follow, their
    lengths, and the arrays: cells, counts, and the counts of each metric.
    """
    arrays = [score.cells, score.counts, *score.metric_counts]
    bits = np.float64(score.loss).view(np.int64)
    head = np.array([score.index, score.has_boundary, bits, len(arrays), *map(len, arrays)])
    # Each is converted before: beside an array of another type the bits would become a float.
    return np.concatenate([one.astype(np.int64) for one in (head, *arrays)])


def unpack(flat: np.ndarray) -> ImageScore:
    """Return the score that `pack` wrote."""
    index, has_boundary, bits, count = flat[:4]
    ends = np.cumsum(flat[4 : 4 + count])
    cells, counts, *metric_counts = np.split(flat[4 + count :], ends[:-1])
    loss = float(bits.view(np.float64))
    return ImageScore(int(index), cells, counts, bool(has_boundary), loss, tuple(metric_counts))


def _append(stream: FileIO, content: bytes) -> None:
    while content:
        content = content[stream.write(content) :]
