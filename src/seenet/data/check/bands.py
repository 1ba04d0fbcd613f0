"""Look at pictures of bands, of 16 bits or of floats, and propose how they are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL.TiffImagePlugin import EXTRASAMPLES, TiffImageFile

from seenet.core.arrays import read_array
from seenet.core.errors import DataError
from seenet.core.image_files import safe_image_open
from seenet.core.images import DEEP, highest_value, read_header
from seenet.core.picture_reader import PictureReader, Range
from seenet.core.raster import TIFFS, sampled_bands
from seenet.data.check.stats import channel_mean_and_std, full_scale, moments_of

SIDE = 256
"""Rows and columns of a picture that are looked at."""
PICTURES = 100
"""Pictures that are looked at."""
PERCENTILES = (0.5, 99.5)
"""Share of a band's values that becomes black, and white."""


@dataclass(frozen=True)
class Bands:
    """A look at a picture of bands.

    Attributes:
        values: h x w x B of at most `SIDE` rows and columns; NaN where there is none.
        shape: height and width of the picture.
        kind: type of the values, as `uint16`.
    """

    values: np.ndarray
    shape: tuple[int, int]
    kind: str


def bands_of(path: Path) -> Bands | None:
    """Look at a picture that is no plain one: of other than 1 or 3 bands, or several of over 8
    bits, or floats; None for a plain picture.

    A TIFF that says that its fourth band is alpha is a plain one.

    Raises:
        DataError: it cannot be read.
    """
    if path.suffix.lower() == ".npy":
        array = read_array(path, mapped=True)
        if array.ndim == 2:
            array = array[..., None]
        if array.dtype == np.uint8 and array.shape[2] in {1, 3}:
            return None
        rows, columns = (max(1, side // SIDE) for side in array.shape[:2])
        height, width = array.shape[:2]
        return Bands(np.asarray(array[::rows, ::columns]), (height, width), str(array.dtype))
    if path.suffix.lower() not in TIFFS or not find_spec("rasterio"):
        return None
    deep = False
    try:
        notes = read_header(path).notes
        deep = "16-bit" in notes and "grey" not in notes
        if not (deep or "32-bit" in notes or _has_unnamed_bands(path)):
            return None
    except DataError as error:
        if error.kind not in {"damaged", "format"}:
            raise
    values, shape, kind = sampled_bands(path, SIDE)
    # Of bright colours of 16 bits the high bytes are a good picture.
    bright = deep and values.shape[2] == 3 and np.nanmax(values) >= DEEP
    return None if bright else Bands(values, shape, kind)


def _has_unnamed_bands(path: Path) -> bool:
    """Return whether a TIFF has bands beside its colours that are no alpha, as far as it says."""
    with safe_image_open(path) as image:
        return isinstance(image, TiffImageFile) and 0 in image.tag_v2.get(EXTRASAMPLES, ())


def propose_bands(images: Sequence[Path]) -> list[str]:
    """Return the lines on channels and their values; none for plain pictures.

    Of grey pictures of 16 bits that use fewer bits, these bits are proposed.
    """
    found: list[Bands] = []
    top = -1
    for image in images[:PICTURES]:
        try:
            bands = bands_of(image)
            highest = None if bands or image.suffix.lower() == ".npy" else highest_value(image)
        except DataError:
            continue
        if bands is None and highest is None:
            return []
        found += [bands] if bands else []
        top = max(top, -1 if highest is None else highest)
    if top >= 0:
        dark = top < DEEP and not found
        return [f"value_range: [0, {full_scale(top)}]  # 16-bit files, no value above {top}"] * dark
    return _lines(found) if found else []


def _lines(found: Sequence[Bands]) -> list[str]:
    count = min(bands.values.shape[2] for bands in found)
    kinds = sorted({bands.kind for bands in found})
    ranges: list[Range] | None = None
    if kinds != ["uint8"]:
        ranges = [_range([bands.values[..., band] for bands in found]) for band in range(count)]
    lines = []
    if count > 1:
        numbers = list(range(1, count + 1))
        lines.append(f"channels: {numbers}  # bands of {', '.join(kinds)}")
    if ranges:
        shown = [[low, high] for low, high in ranges]
        lines.append(
            f"value_range: {shown if count > 1 else shown[0]}  "
            f"# {PERCENTILES[0]} and {PERCENTILES[1]} % of the values"
        )
    if count not in {1, 3}:
        reader = PictureReader(tuple(range(1, count + 1)), tuple(ranges) if ranges else None)
        moments = [moments_of(reader.to_bytes(bands.values[..., :count], "")) for bands in found]
        for name, values in zip(("mean", "std"), channel_mean_and_std(moments), strict=True):
            lines.append(
                f"{name}: {[round(max(value, 0.001), 4) for value in values]}  # of a sample"
            )
    return lines


def _range(values: Sequence[np.ndarray]) -> Range:
    """Return the values of a band that become black and white."""
    flat = np.concatenate([part.ravel().astype(np.float64) for part in values])
    flat = flat[np.isfinite(flat)]
    if not flat.size:
        return 0.0, 1.0
    low, high = (float(f"{value:.5g}") for value in np.percentile(flat, PERCENTILES))
    return low, high if high > low else low + 1
