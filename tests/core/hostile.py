"""Hostile images: bombs that declare or unpack to more than they hold, and slow files."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, features

from tests.core.tiffs import Page, long, tiff_of
from tests.data.planting import chunk, png_of

GREY = np.full((4, 4), 128, np.uint8)


def saved(form: str, **options: object) -> bytes:
    """Return a small grey image in a format."""
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 128, np.uint8)).save(stream, form, **options)
    return stream.getvalue()


@cache
def zeros(mebibytes: int) -> bytes:
    """Return so many MiB of zeros, deflated to about 1 KiB each."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(mebibytes)) + packer.flush()


def _patched(content: bytes, place: int, value: bytes) -> bytes:
    return content[:place] + value + content[place + len(value) :]


def _declared(form: str, mark: bytes, offset: int, layout: str, *size: int) -> bytes:
    """Return a small image whose header, `offset` bytes after `mark`, declares this size."""
    content = saved(form)
    return _patched(content, content.index(mark) + offset, struct.pack(layout, *size))


def _webp() -> bytes:
    content = saved("WEBP", lossless=True)
    place = content.index(b"VP8L") + 9
    bits = int.from_bytes(content[place : place + 4], "little") & ~(2**28 - 1) | 16382 | 16382 << 14
    return _patched(content, place, struct.pack("<I", bits))


def _jp2() -> bytes:
    content = _declared("JPEG2000", b"ihdr", 4, ">II", 100_000, 100_000)
    size = struct.pack(">II", 100_000, 100_000)
    return _patched(content, content.index(b"\xff\x51") + 6, size)


def _frames() -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 4, 4, 0) + b"\x02\x02\x84\x51\x00"
    head = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + frame * 200_000 + b"\x3b"


def _texts(kind: bytes, count: int, *, late: bool = False) -> bytes:
    """Return a PNG with texts of one MiB each, as much as Pillow allows a single text."""
    between = b"\0\1\0\0\0" if kind == b"iTXt" else b"\0\0"
    chunks = b"".join(chunk(kind, b"k%d" % number + between + zeros(1)) for number in range(count))
    return png_of(4, 4, after=chunks) if late else png_of(4, 4, before=chunks)


def _tile() -> bytes:
    """Return a TIFF of 16 x 16 pixels in one deflated tile of 12288 x 12288."""
    data, side = zeros(144), 12288
    tags = [
        (256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1),
        (322, 4, side), (323, 4, side), (324, 4, 8), (325, 4, len(data)),
    ]  # fmt: skip
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return head + data + struct.pack("<H", len(tags)) + packed + bytes(4)


HUGE = (100_000, 100_000)
BOMBS: dict[str, Callable[[], bytes]] = {
    "declared.png": lambda: png_of(60_000, 60_000, pixels=b""),
    "largest.png": lambda: png_of(2**31 - 1, 2**31 - 1, pixels=b""),
    "real.png": lambda: png_of(40_000, 10_000, pixels=zeros(1200)),
    "declared.jpg": lambda: _declared("JPEG", b"\xff\xc0", 5, ">HH", 65500, 65500),
    "declared.tif": lambda: tiff_of(Page(GREY, {256: long(HUGE[0]), 257: long(HUGE[1])})),
    "declared.webp": _webp,
    "declared.gif": lambda: _declared("GIF", b"GIF", 6, "<HH", 65535, 65535),
    "declared.bmp": lambda: _declared("BMP", b"BM", 18, "<ii", *HUGE),
    "declared.jp2": _jp2,
    **(
        {"declared.avif": lambda: _declared("AVIF", b"ispe", 8, ">II", 60_000, 60_000)}
        if features.check("avif")
        else {}
    ),
    "declared.ppm": lambda: b"P6\n100000 100000\n255\n" + bytes(100),
    "frames.gif": _frames,
    "pages.tif": lambda: tiff_of(*[Page(GREY)] * 20_000),
    "tile.tif": _tile,
}
"""Images that are refused, by file name."""

HARMLESS: dict[str, Callable[[], bytes]] = {
    "long.png": lambda: png_of(4, 4, pixels=zeros(1000)),
    "copies.tif": lambda: tiff_of(*[Page(GREY, {254: long(1)})] * 20_000),
    "tags.tif": lambda: tiff_of(
        Page(GREY, {tag: (1, 2**31 - 1, struct.pack("<L", 8)) for tag in (700, 34377)})
    ),
    "profile.png": lambda: png_of(4, 4, before=chunk(b"iCCP", b"icc\0\0" + zeros(1000))),
    "ztxt.png": lambda: _texts(b"zTXt", 200),
    "itxt.png": lambda: _texts(b"iTXt", 200),
    "late.png": lambda: _texts(b"iTXt", 200, late=True),
    "exif.png": lambda: png_of(
        4, 4, before=chunk(b"zTXt", b"Raw profile type exif\0\0" + zeros(500))
    ),
    "texts.png": lambda: _texts(b"iTXt", 20),
}
"""Images that declare or hold far more than is used; each is read or refused."""


def write(folder: Path, name: str) -> Path:
    """Write the file of that name, and return its path."""
    path = folder / name
    path.write_bytes({**BOMBS, **HARMLESS}[name]())
    return path
