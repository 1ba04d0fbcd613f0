"""Build TIFFs of any pages and tags, damaged ones too."""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Tag = tuple[int, int, bytes]
"""Type, number of values, and their bytes; up to four bytes go into the entry unchanged."""

SHORT, LONG, ASCII, SRATIONAL = 3, 4, 2, 10
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 10: 8, 11: 4, 12: 8}


@dataclass
class Page:
    """Uncompressed pixels, H x W or H x W x bands, and tags that replace those of the pixels."""

    pixels: np.ndarray
    tags: dict[int, Tag] = field(default_factory=dict)


def short(*values: int) -> Tag:
    """Return a tag of little-endian 16-bit values."""
    return SHORT, len(values), struct.pack(f"<{len(values)}H", *values)


def long(*values: int) -> Tag:
    """Return a tag of little-endian 32-bit values."""
    return LONG, len(values), struct.pack(f"<{len(values)}L", *values)


def tiff_of(*pages: Page, big: bool = False) -> bytes:
    """Return a little-endian TIFF, or BigTIFF, of these pages."""
    width, entry_head, count_form, word = (
        (8, "<HHQ", "<Q", "<Q") if big else (4, "<HHL", "<H", "<L")
    )
    out = bytearray(b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4))
    link = 8 if big else 4
    for page in pages:
        start = len(out)
        out += page.pixels.tobytes()
        entries = {}
        for tag, (kind, count, data) in {**_pixel_tags(page.pixels, start), **page.tags}.items():
            if len(data) > width or (big and count * _SIZES[kind] > width):
                out += bytes(len(out) % 2)
                place, out = len(out), out + data
                data = struct.pack(word, place)
            entries[tag] = struct.pack(entry_head, tag, kind, count) + data.ljust(width, b"\0")
        out += bytes(len(out) % 2)
        out[link : link + width] = struct.pack(word, len(out))
        out += struct.pack(count_form, len(entries)) + b"".join(
            entries[tag] for tag in sorted(entries)
        )
        link = len(out)
        out += bytes(width)
    return bytes(out)


def _pixel_tags(pixels: np.ndarray, start: int) -> dict[int, Tag]:
    height, width = pixels.shape[:2]
    bands = pixels.shape[2] if pixels.ndim == 3 else 1
    tags = {
        256: long(width), 257: long(height), 258: short(*[8 * pixels.itemsize] * bands),
        259: short(1), 262: short(2 if bands > 2 else 1), 273: long(start), 277: short(bands),
        278: long(height), 279: long(pixels.nbytes),
    }  # fmt: skip
    form = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    return tags if form == 1 else {**tags, 339: short(*[form] * bands)}


def write_geotiff(path: Path, values: np.ndarray, **options: Any) -> np.ndarray:
    """Write bands x H x W as a GeoTIFF in UTM 33, a quarter of a metre a pixel."""
    import rasterio

    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width}
    transform = rasterio.transform.from_origin(500_000, 4_649_776, 0.25, 0.25)
    place = {"crs": "EPSG:32633", "transform": transform, "dtype": values.dtype}
    with rasterio.open(path, "w", **profile, **place, **options) as file:
        file.write(values)
    return values


def noise(bands: int, height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, np.iinfo(dtype).max + 1, (bands, height, width), dtype)
