"""A file with parts left out or replaced, read without copying it."""

import io
from bisect import bisect_right
from collections.abc import Sequence
from typing import BinaryIO

Piece = bytes | tuple[int, int]
"""Bytes that are put in, or where bytes of the file begin and end."""


class _Edited(io.RawIOBase):
    """The pieces one after another."""

    def __init__(self, stream: BinaryIO, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._stream, self._place, self._length = stream, 0, 0
        self._pieces: list[Piece] = []
        self._starts: list[int] = []
        for piece in pieces:
            size = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            if size > 0:
                self._pieces.append(piece)
                self._starts.append(self._length)
                self._length += size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        """The file's own: libtiff reads it by itself, and the pieces of a TIFF leave everything in its place."""
        return self._stream.fileno()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length}[whence]
        if place < 0:
            raise ValueError(f"negative seek position {place}")
        self._place = place
        return place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # RawIOBase takes any buffer
        if self._place >= self._length:
            return 0
        number = bisect_right(self._starts, self._place) - 1
        piece, within = self._pieces[number], self._place - self._starts[number]
        if isinstance(piece, bytes):
            part = piece[within : within + len(buffer)]
        else:
            self._stream.seek(piece[0] + within)
            part = self._stream.read(min(len(buffer), piece[1] - piece[0] - within))
        buffer[: len(part)] = part
        self._place += len(part)
        return len(part)


def edited(stream: BinaryIO, pieces: Sequence[Piece]) -> BinaryIO:
    """`stream`, of which nothing but `pieces` is to be seen. It must stay open, and be read through this alone."""
    return io.BufferedReader(_Edited(stream, pieces), 2**16)
