"""Images with metadata, intact and damaged."""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, features

from seenet.core.images import image_size, read_image
from tests.core.tiffs import ASCII, LONG, SHORT, SRATIONAL
from tests.data.planting import chunk

COLOURS = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
XRESOLUTION, ORIENTATION = 282, 274
HAS_AVIF = features.check("avif")
FORMS = ["JPEG", "PNG", "WEBP"]

Entry = tuple[int, int, int, bytes]


def exif(*entries: Entry, order: str = "<") -> bytes:
    """Return an EXIF block of tags: tag, type, number, and bytes (up to four unchanged)."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    start = 8 + 2 + 12 * len(entries) + 4
    body, tail = struct.pack(f"{order}H", len(entries)), b""
    for tag, kind, count, data in entries:
        if len(data) > 4:
            tail, data = tail + data, struct.pack(f"{order}L", start + len(tail))
        body += struct.pack(f"{order}HHL", tag, kind, count) + data.ljust(4, b"\0")
    return b"Exif\0\0" + head + struct.pack(f"{order}L", 8) + body + bytes(4) + tail


def turn(orientation: int, order: str = "<") -> Entry:
    return ORIENTATION, SHORT, 1, struct.pack(f"{order}H", orientation)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    image = Image.fromarray(pixels)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def is_turned(pixels: np.ndarray, plain: np.ndarray) -> bool:
    """Return whether pixels are `plain` in any orientation."""
    return any(np.array_equal(pixels, turned(plain, orientation)) for orientation in range(1, 9))


ENDLESS = (XRESOLUTION, SRATIONAL, 1, struct.pack("<ll", -1, 0))
BEYOND = (270, ASCII, 9, struct.pack("<L", 2**31))
"""A description whose place is beyond the end of the file."""
LETTERS = (XRESOLUTION, ASCII, 2, b"7\0")
CENTIMETRES = (296, SHORT, 1, struct.pack("<H", 3))
POINTER = (34665, LONG, 1, struct.pack("<L", 2**31))

BLOCKS: dict[str, tuple[bytes, int]] = {
    "plain": (exif(turn(6)), 6),
    "big-endian": (exif(turn(6, ">"), order=">"), 6),
    "a ratio over zero": (exif(turn(6), ENDLESS), 6),
    "a ratio over zero, without a turn": (exif(ENDLESS, CENTIMETRES), 1),
    "beyond the end": (exif(BEYOND, turn(6)), 6),
    "letters for a number": (exif(turn(6), LETTERS, CENTIMETRES), 6),
    "a pointer beyond the end": (exif(turn(8), POINTER), 8),
    "cut within its tags": (exif(turn(6), ENDLESS)[: 6 + 8 + 2 + 12 + 5], 6),
    "cut before its turn": (exif(ENDLESS, turn(6))[: 6 + 8 + 2 + 12 + 5], 1),
    "no TIFF": (b"Exif\0\0not a TIFF at all", 1),
    "nothing": (b"Exif\0\0", 1),
    "a turn of nine": (exif(turn(9)), 1),
    "a turn in letters": (exif((ORIENTATION, ASCII, 2, b"6\0")), 1),
    "a turn of 32 bits": (exif((ORIENTATION, LONG, 1, b"\6\0\0\0")), 6),
}
"""EXIF blocks, and the orientation that each gives."""


def insert(content: bytes, place: int, data: bytes) -> bytes:
    return content[:place] + data + content[place:]


def part_places(form: str, content: bytes) -> tuple[int, ...]:
    """Return some places where a PNG may have another chunk, or a JPEG another segment."""
    if form == "PNG":
        return 33, len(content) - 12
    return 2, content.index(b"\xff\xdb"), content.index(b"\xff\xda")


def saved(form: str, block: bytes | None = None, xmp: bytes | None = None) -> bytes:
    """Return COLOURS as a file with this EXIF block and XMP packet, valid or not."""
    options: dict[str, object] = {"lossless": True} if form == "WEBP" else {}
    if form != "PNG":
        options |= {key: data for key, data in (("exif", block), ("xmp", xmp)) if data}
    stream = io.BytesIO()
    Image.fromarray(COLOURS).save(stream, form, **options)
    content = stream.getvalue()
    if form == "PNG":
        # Pillow checks what it writes to a PNG.
        texts = b"" if xmp is None else chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        own = chunk(b"eXIf", block.removeprefix(b"Exif\0\0")) if block else b""
        return insert(content, 33, own + texts)
    return content


def read(path: Path, content: bytes) -> np.ndarray:
    """Read an image, and check that its header gives the same size."""
    path.write_bytes(content)
    pixels = read_image(path)
    assert image_size(path) == pixels.shape[:2]
    return pixels


def segment(marker: int, data: bytes) -> bytes:
    """Return a segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
