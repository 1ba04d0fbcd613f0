"""Counts of an evaluation under way, kept beside its results, so that one that was interrupted goes on where it stopped.

A file a rank: a line of JSON that says of which evaluation (`key`), then records that are only ever appended. A record is its length
and CRC-32, then a SHA-256 of what the picture's counts depend on, then the counts as `gather.pack` has them. What a kill cut short is
told by these two numbers and dropped.
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
from seenet.evaluation.gather import pack, unpack
from seenet.evaluation.scores import ImageScore

log = logging.getLogger("seenet")

FORMAT = 1
"""Raised when the same pictures are counted otherwise than before."""
HEAD = struct.Struct("<II")
STAMP_BYTES = hashlib.sha256().digest_size


@dataclass
class Partial:
    """`found`: scores by stamp, of all ranks and earlier tries; `add` keeps one more."""

    found: dict[bytes, ImageScore]
    path: Path
    stream: FileIO

    def add(self, stamp: bytes, score: ImageScore) -> None:
        """Append one picture's counts; DataError where the disk does not take them."""
        payload = stamp + pack([score]).astype("<i8").tobytes()
        try:
            _append(self.stream, HEAD.pack(len(payload), zlib.crc32(payload)) + payload)
        except OSError as error:
            raise _cannot_write(self.path, error) from None


def stamp_of(*parts: str) -> bytes:
    """What a picture's counts depend on besides the key, as one hash."""
    return bytes.fromhex(digest(*parts))


@contextmanager
def open_partial(folder: Path, key: dict[str, Any], rank: int = 0) -> Iterator[Partial]:
    """Read what the files of all ranks in `folder` hold of the evaluation `key` (JSON values), and write into this rank's own.

    Where its own is of another evaluation it is started anew, saying so. Raises BusyError where another process writes it, DataError
    where the folder cannot be written.
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
        yield Partial(found, path, stream)


def read_records(content: bytes, start: int) -> tuple[int, dict[bytes, ImageScore]]:
    """Where the last whole record ends, and the scores of all of them by stamp, from `start` on; what follows damage is left out."""
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


def _append(stream: FileIO, content: bytes) -> None:
    while content:
        content = content[stream.write(content) :]


def _difference(content: bytes, line: bytes) -> str:
    """The first setting that differs, for people."""
    try:
        before, now = json.loads(content.partition(b"\n")[0]), json.loads(line)
        name = next(name for name in now if before.get(name) != now[name])
    except (ValueError, AttributeError, StopIteration):
        return "cannot be read"
    return f"{name} was {before.get(name)} and is now {now[name]}"


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be written ({error.strerror or error}); make room or give another --out; the same command goes on")
