"""Data sets whose pictures are bands, of 16 bits or of floats, each with its truth."""

from pathlib import Path

import numpy as np

from tests.core.tiffs import write_geotiff
from tests.data.layouts import Truth, fill, layout, save

Rng = np.random.Generator


def scaled(pixels: np.ndarray, dtype: str) -> np.ndarray:
    """Return 8-bit values as this type: of 16 bits from 300 to 2,850, of floats from -1 to 3."""
    if dtype == "uint8":
        return pixels
    if dtype == "uint16":
        return pixels.astype(np.uint16) * 10 + 300
    return (pixels / 255 * 4 - 1).astype(np.float32)


def banded(name: str, count: int, dtype: str, suffix: str) -> None:
    """Enter a data set of `count` bands: those of a picture, again and again."""

    def show(path: Path, pixels: np.ndarray) -> None:
        bands = scaled(np.concatenate([pixels] * 3, axis=2)[..., :count], dtype)
        if suffix == ".npy":
            save(path, bands[..., 0] if count == 1 else bands)
        else:
            write_geotiff(path, np.moveaxis(bands, 2, 0), photometric="MINISBLACK")

    def generator(root: Path, rng: Rng, renamed: bool = False) -> Truth:
        return fill(root, rng, f"images/{{id}}{suffix}", show=show, renamed=renamed)

    generator.__name__ = name
    layout(generator)


MADE: dict[str, tuple[int, str, str]] = {
    "four_bands_tiff": (4, "uint8", ".tif"),
    "five_bands_16_bit_tiff": (5, "uint16", ".tif"),
    "four_bands_float_tiff": (4, "float32", ".tif"),
    "dark_colours_tiff": (3, "uint16", ".tif"),
    "one_band_float_tiff": (1, "float32", ".tif"),
    "six_bands_numpy": (6, "uint16", ".npy"),
    "two_bands_numpy": (2, "uint8", ".npy"),
    "one_band_float_numpy": (1, "float32", ".npy"),
}
"""Number and type of the bands, and the suffix."""
for made, what in MADE.items():
    banded(made, *what)
