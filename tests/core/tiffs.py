"""TIFFs of any pages and tags, damaged ones too."""

import struct
from dataclasses import dataclass, field

import numpy as np

Tag = tuple[int, int, bytes]
"""Type, number of values, and these; at most four bytes are put in the entry as they are, whatever the number says."""

SHORT, LONG, ASCII, SRATIONAL = 3, 4, 2, 10
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 10: 8, 11: 4, 12: 8}


@dataclass
class Page:
    """Uncompressed pixels, H x W or H x W x bands, and further tags, which replace those of the pixels."""

    pixels: np.ndarray
    tags: dict[int, Tag] = field(default_factory=dict)


def short(*values: int) -> Tag:
    """A tag of 16 bits a value, in the order of little-endian files."""
    return SHORT, len(values), struct.pack(f"<{len(values)}H", *values)


def long(*values: int) -> Tag:
    """A tag of 32 bits a value, in the order of little-endian files."""
    return LONG, len(values), struct.pack(f"<{len(values)}L", *values)


def tiff_of(*pages: Page, big: bool = False) -> bytes:
    """A little-endian file of these pages, the first one first."""
    width, entry_head, count_form, word = (8, "<HHQ", "<Q", "<Q") if big else (4, "<HHL", "<H", "<L")
    out = bytearray(b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4))
    link = 8 if big else 4
    for page in pages:
        place = len(out)
        out += page.pixels.tobytes()
        entries = {}
        for tag, (kind, count, data) in {**_of_pixels(page.pixels, place), **page.tags}.items():
            if len(data) > width or (big and count * _SIZES[kind] > width):
                data = struct.pack(word, _put(out, data))
            entries[tag] = struct.pack(entry_head, tag, kind, count) + data.ljust(width, b"\0")
        out += bytes(len(out) % 2)
        out[link : link + width] = struct.pack(word, len(out))
        out += struct.pack(count_form, len(entries)) + b"".join(entries[tag] for tag in sorted(entries))
        link = len(out)
        out += bytes(width)
    return bytes(out)


def _put(out: bytearray, data: bytes) -> int:
    out += bytes(len(out) % 2)
    place = len(out)
    out += data
    return place


def _of_pixels(pixels: np.ndarray, place: int) -> dict[int, Tag]:
    height, width = pixels.shape[:2]
    bands = pixels.shape[2] if pixels.ndim == 3 else 1
    return {
        256: long(width), 257: long(height), 258: short(*[8 * pixels.itemsize] * bands), 259: short(1),
        262: short(2 if bands > 2 else 1), 273: long(place), 277: short(bands), 278: long(height), 279: long(pixels.nbytes),
        **({339: short(*[{"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]] * bands)} if pixels.dtype.kind != "u" else {}),
    }  # fmt: skip
