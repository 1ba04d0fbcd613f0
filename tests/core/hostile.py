"""Pictures made to harm: bombs that declare or unpack to more than they hold, and files that keep a reader busy."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, features

from tests.data.planting import chunk, png_of


def saved(form: str, **options: object) -> bytearray:
    """A small grey picture in a format."""
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 128, np.uint8)).save(stream, form, **options)
    return bytearray(stream.getvalue())


@cache
def zeros(mebibytes: int) -> bytes:
    """So many zeros, deflated: about 1 KiB for each MiB."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(mebibytes)) + packer.flush()


def _patched(content: bytearray, place: int, value: bytes) -> bytes:
    content[place : place + len(value)] = value
    return bytes(content)


def _jpeg() -> bytes:
    content = saved("JPEG")
    return _patched(content, content.index(b"\xff\xc0") + 5, struct.pack(">HH", 65500, 65500))


def _webp() -> bytes:
    content = saved("WEBP", lossless=True)
    place = content.index(b"VP8L") + 9
    bits = int.from_bytes(content[place : place + 4], "little") & ~(2**28 - 1) | 16382 | 16382 << 14
    return _patched(content, place, struct.pack("<I", bits))


def _jp2() -> bytes:
    content = saved("JPEG2000")
    size = struct.pack(">II", 100_000, 100_000)
    content = bytearray(_patched(content, content.index(b"ihdr") + 4, size))
    return _patched(content, content.index(b"\xff\x51") + 6, size)


def _avif() -> bytes:
    content = saved("AVIF")
    return _patched(content, content.index(b"ispe") + 8, struct.pack(">II", 60_000, 60_000))


def tiff(width: int, height: int, *, pages: int = 1, tags: tuple[tuple[int, int, int, int], ...] = ()) -> bytes:
    """Grey, uncompressed; every page has the same sixteen bytes of pixels."""
    entries = sorted(
        [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1),
            (278, 4, 1, height), (279, 4, 1, 16), *tags,
        ]
    )  # fmt: skip
    page = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    places = [24 + (len(page) + 4) * number for number in range(pages)]
    return b"II*\0" + struct.pack("<I", 24) + bytes(16) + b"".join(page + struct.pack("<I", place) for place in [*places[1:], 0])


def _frames() -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 4, 4, 0) + b"\x02\x02\x84\x51\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame * 200_000 + b"\x3b"


def _texts(kind: bytes, count: int, *, late: bool = False) -> bytes:
    """Each unpacks to one MiB, which Pillow allows a single text."""
    between = b"\0\1\0\0\0" if kind == b"iTXt" else b"\0\0"
    chunks = b"".join(chunk(kind, b"k%d" % number + between + zeros(1)) for number in range(count))
    return png_of(4, 4, after=chunks) if late else png_of(4, 4, before=chunks)


def _tile() -> bytes:
    """16 x 16 pixels in one deflated tile of 12288 x 12288."""
    data, side = zeros(144), 12288
    tags = [
        (256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1), (322, 4, side), (323, 4, side), (324, 4, 8),
        (325, 4, len(data)),
    ]  # fmt: skip
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    place = 8 + len(data)
    return struct.pack("<2sHI", b"II", 42, place) + data + struct.pack("<H", len(tags)) + packed + struct.pack("<I", 0)


BOMBS: dict[str, Callable[[], bytes]] = {
    "declared.png": lambda: png_of(60_000, 60_000, pixels=b""),
    "largest.png": lambda: png_of(2**31 - 1, 2**31 - 1, pixels=b""),
    "real.png": lambda: png_of(40_000, 10_000, pixels=zeros(1200)),
    "declared.jpg": _jpeg,
    "declared.tif": lambda: tiff(100_000, 100_000),
    "declared.webp": _webp,
    "declared.gif": lambda: _patched(saved("GIF"), 6, struct.pack("<HH", 65535, 65535)),
    "declared.bmp": lambda: _patched(saved("BMP"), 18, struct.pack("<ii", 100_000, 100_000)),
    "declared.jp2": _jp2,
    **({"declared.avif": _avif} if features.check("avif") else {}),
    "declared.ppm": lambda: b"P6\n100000 100000\n255\n" + bytes(100),
    "frames.gif": _frames,
    "pages.tif": lambda: tiff(4, 4, pages=20_000),
    "tile.tif": _tile,
}
"""Each is refused; by name of the file."""

HARMLESS: dict[str, Callable[[], bytes]] = {
    "long.png": lambda: png_of(4, 4, pixels=zeros(1000)),
    "copies.tif": lambda: tiff(4, 4, pages=20_000, tags=((254, 4, 1, 1),)),
    "tags.tif": lambda: tiff(4, 4, tags=((700, 1, 2**31 - 1, 8), (34377, 1, 2**31 - 1, 8))),
    "profile.png": lambda: png_of(4, 4, before=chunk(b"iCCP", b"icc\0\0" + zeros(1000))),
    "ztxt.png": lambda: _texts(b"zTXt", 200),
    "itxt.png": lambda: _texts(b"iTXt", 200),
    "late.png": lambda: _texts(b"iTXt", 200, late=True),
    "exif.png": lambda: png_of(4, 4, before=chunk(b"zTXt", b"Raw profile type exif\0\0" + zeros(500))),
    "texts.png": lambda: _texts(b"iTXt", 20),
}
"""Each declares or holds far more than is used, and is read all the same, or refused."""


def write(folder: Path, name: str) -> Path:
    """The file of that name, made."""
    path = folder / name
    path.write_bytes({**BOMBS, **HARMLESS}[name]())
    return path
