"""Keep the counts of an evaluation under way, so that one that was interrupted goes on where it stopped.

One file a rank: a line of JSON that says of which evaluation (`key`), then records, only ever
appended. A record is its length and CRC-32, then a SHA-256 of what the picture's counts depend on,
then the counts as `pack` has them. These two numbers tell what a kill cut short; it is dropped.
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

from seenet.core.errors import DataError
from seenet.core.files import digest
from seenet.core.locks import locked
from seenet.evaluation.confusion import ImageScore

log = logging.getLogger("seenet")

FORMAT = 1
"""Raised when the same pictures are counted otherwise than before."""
HEAD = struct.Struct("<II")
STAMP_BYTES = hashlib.sha256().digest_size


@dataclass
class ScoreJournal:
    """Scores by stamp, of all ranks and earlier tries, in `found`; `add` keeps one more."""

    found: dict[bytes, ImageScore]
    path: Path
    stream: FileIO

    def add(self, stamp: bytes, score: ImageScore) -> None:
        """Append one picture's counts; raise DataError where the disk does not take them."""
        payload = stamp + pack([score]).astype("<i8").tobytes()
        try:
            _append(self.stream, HEAD.pack(len(payload), zlib.crc32(payload)) + payload)
        except OSError as error:
            raise _cannot_write(self.path, error) from None


def stamp_of(*parts: str) -> bytes:
    """Hash what a picture's counts depend on besides the key."""
    return bytes.fromhex(digest(*parts))


@contextmanager
def open_journal(folder: Path, key: dict[str, Any], rank: int = 0) -> Iterator[ScoreJournal]:
    """Read what the files of all ranks in `folder` hold of the evaluation `key` (JSON values), and write into this rank's own.

    Start this rank's own anew where it is of another evaluation, saying so.

    Raises:
        BusyError: another process writes it.
        DataError: the folder cannot be written.
    """
    path = folder / f"rank-{rank}"
    line = json.dumps(key, sort_keys=True).encode() + b"\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Without a buffer nothing is left to be written when an error closes it.
        stream = FileIO(path, "a")
    except OSError as error:
        raise _cannot_write(path, error) from None
    busy = f"{path}: another process evaluates into this folder; wait for it, or give another --out"
    with stream, locked(stream.fileno(), busy=busy):
        found: dict[bytes, ImageScore] = {}
        for other in sorted(folder.glob("rank-*")):
            content = other.read_bytes()
            if not content.startswith(line):
                if other == path and content:
                    log.info("%s: counts of another evaluation (%s); starting anew", path, _difference(content, line))
                continue
            good, scores = read_records(content, len(line))
            found |= scores
            if other == path:
                stream.truncate(good)
        try:
            if not path.read_bytes().startswith(line):
                stream.truncate(0)
                _append(stream, line)
        except OSError as error:
            raise _cannot_write(path, error) from None
        yield ScoreJournal(found, path, stream)


def read_records(content: bytes, start: int) -> tuple[int, dict[bytes, ImageScore]]:
    """Return where the last whole record ends, and the scores by stamp, from `start` on; leave out what follows damage."""
    scores = {}
    while start + HEAD.size <= len(content):
        length, crc = HEAD.unpack_from(content, start)
        payload = content[start + HEAD.size : start + HEAD.size + length]
        if length < STAMP_BYTES or len(payload) < length or zlib.crc32(payload) != crc:
            break
        (score,) = unpack(np.frombuffer(payload[STAMP_BYTES:], "<i8").astype(np.int64))
        scores[payload[:STAMP_BYTES]] = score
        start += HEAD.size + length
    return start, scores


def pack(scores: list[ImageScore]) -> np.ndarray:
    """Return scores as one int64 array.

    For each: index, outlined, bits of the loss, number of arrays that follow, their sizes, the arrays
    (cells, counts, what metrics counted).
    """
    parts = []
    for score in scores:
        bits = np.array([score.loss], np.float64).view(np.int64)[0]
        arrays = (score.cells, score.counts, *score.measured)
        parts.append(np.array([score.index, score.outlined, bits, len(arrays), *map(len, arrays)], np.int64))
        parts += [array.astype(np.int64) for array in arrays]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def unpack(flat: np.ndarray) -> list[ImageScore]:
    """Return the scores that `pack` made `flat` of."""
    scores, at = [], 0
    while at < len(flat):
        index, outlined, _, many = (int(value) for value in flat[at : at + 4])
        loss = float(flat[at + 2 : at + 3].view(np.float64)[0])
        ends = at + 4 + many + np.cumsum(flat[at + 4 : at + 4 + many])
        cells, counts, *measured = (array.copy() for array in np.split(flat[: ends[-1]], [at + 4 + many, *ends[:-1]])[1:])
        scores.append(ImageScore(index, cells, counts, bool(outlined), loss, tuple(measured)))
        at = int(ends[-1])
    return scores


def _append(stream: FileIO, content: bytes) -> None:
    while content:
        content = content[stream.write(content) :]


def _difference(content: bytes, line: bytes) -> str:
    """Say which setting differs first."""
    try:
        before, now = json.loads(content.partition(b"\n")[0]), json.loads(line)
        name = next(name for name in now if before.get(name) != now[name])
    except (ValueError, AttributeError, StopIteration):
        return "cannot be read"
    return f"{name} was {before.get(name)} and is now {now[name]}"


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be written ({error.strerror or error}); make room or give another --out; the same command goes on")
