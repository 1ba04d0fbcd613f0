"""What an AVIF says before it is opened: its size, and where its EXIF block is declared (ISO/IEC 23008-12, 14496-12)."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from seenet.core.edited import Piece

MOST_BOXES, MOST_BYTES = 100, 4 * 2**20
"""Boxes on the first level, and bytes of the box of metadata, that are looked at."""


def header(stream: BinaryIO) -> tuple[tuple[int, int] | None, list[Piece]]:
    """Width and height of the largest picture in it, and the file without its EXIF block, over which libavif would stumble.

    By rule of the format it is other boxes that say how the picture is turned. None where no size is found.
    """
    sizes: list[tuple[int, int]] = []
    pieces: list[Piece] = []
    start = 0
    try:
        place, data = _meta(stream)
        for kind, body, end in _boxes(data, 4, len(data)):
            if kind == b"iprp":
                sizes += _sizes(data, body, end)
            elif kind == b"iinf":
                for where in _exif_items(data, body, end):
                    pieces += [(start, place + where), b"none"]
                    start = place + where + 4
    except (struct.error, IndexError):
        pass  # damaged: libavif will say so
    pieces.append((start, stream.seek(0, 2)))
    return max(sizes, key=lambda size: size[0] * size[1], default=None), pieces


def _meta(stream: BinaryIO) -> tuple[int, bytes]:
    """Where the body of the box of metadata begins, and that; nothing where there is none."""
    place, file_end = 0, stream.seek(0, 2)
    for _ in range(MOST_BOXES):
        stream.seek(place)
        for kind, body, end in _boxes(stream.read(16), 0, file_end - place):
            if kind == b"meta":
                stream.seek(place + body)
                return place + body, stream.read(min(end - body, MOST_BYTES))
            place += end
            break
        else:
            break
    return 0, b""


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each box between `start` and `end`, and where its body begins and ends."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">L4s", data, start)
        body = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        stop = end if size == 0 else start + size
        if not body <= stop <= end:
            return
        yield kind, body, stop
        start = stop


def _sizes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Of the pictures that the properties describe; a picture of tiles is larger than each of them."""
    for kind, body, stop in _boxes(data, start, end):
        if kind == b"ipco":
            for inner, place, _ in _boxes(data, body, stop):
                if inner == b"ispe":
                    yield struct.unpack_from(">4xLL", data, place)


def _exif_items(data: bytes, start: int, end: int) -> Iterator[int]:
    """Where the types of items that are EXIF blocks stand."""
    first = start + (6 if data[start] == 0 else 8)
    for kind, body, _ in _boxes(data, first, end):
        place = body + {2: 8, 3: 10}.get(data[body], len(data))
        if kind == b"infe" and data[place : place + 4] == b"Exif":
            yield place
