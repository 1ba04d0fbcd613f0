"""Large and georeferenced TIFFs, read by windows, so that no picture is ever whole in memory. rasterio is the extra `geo`."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import EXTRASAMPLES, TiffImageFile

from seenet.core.errors import DataError
from seenet.core.image_files import MAX_PIXELS, safe_image_open
from seenet.core.images import eight_bits, from_pil, no_range, orientation, tiff_values

LARGE = 32_000_000
"""Pixels from which on a TIFF is read by windows: decoded whole it would take some 10 bytes each."""
CACHE = 128_000_000
"""Bytes of decoded blocks that GDAL holds. Where a row of blocks does not fit, each is decoded or compressed again for every line."""
GEO_TAGS = (33550, 33922, 34264, 34735)
"""ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory (OGC 19-008r4, GeoTIFF 1.1, section 7)."""
_MULTIPLIED = 1
"""Of the further samples of a pixel: the alpha by which its colours were multiplied."""


def by_windows(path: Path) -> bool:
    """Whether a picture is a TIFF over `LARGE` pixels, or georeferenced where rasterio is there; one that is turned (EXIF) is read whole.

    False as well for what cannot be opened, of which its reader will tell.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        with safe_image_open(path) as image:
            if not isinstance(image, TiffImageFile) or orientation(image) != 1:
                return False
            large = image.width * image.height > LARGE
            located = any(tag in image.tag_v2 for tag in GEO_TAGS)
    except DataError:
        return False
    return large or (located and find_spec("rasterio") is not None)


class RasterPicture:
    """An H x W x 3 uint8 picture whose windows `picture[rows, columns]` are read when they are asked for; `picture[:, ::-1]` mirrors it.

    The first three bands, or grey or palette from one; values of other than 8 bits, or whose 0 is white, as `core.images` has them.
    """

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(self, dataset: Any, name: str, values: "Values", *, mirrored: bool = False) -> None:
        self.dataset, self.name, self.values, self.mirrored = dataset, name, values, mirrored
        self.shape = (dataset.height, dataset.width, 3)
        colours = 3 if dataset.count >= 3 else 1
        self._bands = list(range(1, colours + 1 + values.multiplied))
        self._table: np.ndarray | None = None
        if dataset.colorinterp[0].name == "palette":
            table = dataset.colormap(1)
            self._table = np.array([table.get(index, (0, 0, 0))[:3] for index in range(256)], np.uint8)

    def __getitem__(self, key: tuple[slice, slice]) -> Any:
        rows, columns = key
        if columns.step == -1:
            return RasterPicture(self.dataset, self.name, self.values, mirrored=not self.mirrored)
        (top, bottom, _), (left, right, _) = rows.indices(self.shape[0]), columns.indices(self.shape[1])
        if not self.mirrored:
            return self._read(((top, bottom), (left, right)))
        width = self.shape[1]
        return self._read(((top, bottom), (width - right, width - left)))[:, ::-1]

    def reduced(self, height: int, width: int) -> np.ndarray:
        """height x width x 3: every so manyth pixel."""
        return self._read(None, out_shape=(len(self._bands), height, width))

    def _read(self, window: Any, **options: Any) -> np.ndarray:
        with told(self.name):
            values = self.dataset.read(self._bands, window=window, **options)
        if self._table is not None:
            coloured: np.ndarray = self._table[values[0]]
            return coloured
        if len(values) >= 3 and self.values.bits == 16:
            # Of colours Pillow gives the high byte.
            values = (values >> 8).astype(np.uint8)
        else:
            values = eight_bits(values, self.values.bits, inverted=self.values.inverted)
        pixels = np.moveaxis(values, 0, 2)
        if self.values.multiplied:
            mode, stored = ("La", "La") if len(values) == 2 else ("RGBA", "RGBa")
            size = (pixels.shape[1], pixels.shape[0])
            return from_pil(Image.frombytes(mode, size, pixels.tobytes(), "raw", stored), self.name)
        return pixels if len(values) == 3 else np.repeat(pixels, 3, axis=2)


@dataclass(frozen=True)
class Values:
    """How a TIFF's values are to be read: their bits, whether 0 is white, whether colours were multiplied by the alpha behind them."""

    bits: int
    inverted: bool
    multiplied: bool


@contextmanager
def opened_raster(path: Path) -> Iterator[RasterPicture]:
    """The picture; DataError: rasterio is not installed, damaged, of several pages, over the pixel limit, or values or colours that are
    not read by windows.
    """
    values, page = _values(path)
    where = os.path.abspath(path)
    if page:
        where = f"GTIFF_DIR:{page + 1}:{where}"
    with environment(path) as rasterio:
        with told(str(path)):
            dataset = rasterio.open(where, driver="GTiff")
        with dataset:
            _check(path, dataset)
            yield RasterPicture(dataset, str(path), values)


def _values(path: Path) -> tuple[Values, int]:
    """How its values are read, and which page it is; DataError for colours that GDAL gives as they are stored."""
    with safe_image_open(path) as image:
        bits, inverted = tiff_values(image)
        if image.mode == "LAB" or (image.mode == "CMYK" and bits != 8):
            what = f"{path}: colours of kind {image.mode} with {bits} bits, which are not read by windows"
            raise DataError(what, fix="convert it to RGB", kind="format")
        multiplied = isinstance(image, TiffImageFile) and image.tag_v2.get(EXTRASAMPLES, ())[:1] == (_MULTIPLIED,)
        return Values(bits, inverted, multiplied), image.tell()


def _check(path: Path, dataset: Any) -> None:
    pixels = dataset.width * dataset.height
    if pixels > MAX_PIXELS:
        raise DataError(f"{path}: {pixels} pixels, expected at most {MAX_PIXELS}", fix="cut it into tiles", kind="large")
    if dataset.dtypes[0] not in ("uint8", "uint16"):
        raise no_range(str(path), dataset.dtypes[0], _limits(dataset, str(path)))


def _limits(dataset: Any, name: str) -> tuple[float, float] | None:
    """The least and the largest value of the first band that are finite; None where none is."""
    limits: list[float] = []
    for _, window in dataset.block_windows(1):
        with told(name):
            values = dataset.read(1, window=window)
        values = values[np.isfinite(values)]
        if values.size:
            limits = [min([*limits[:1], values.min()]), max([*limits[1:], values.max()])]
    return (limits[0], limits[1]) if limits else None


@contextmanager
def environment(path: Path) -> Iterator[Any]:
    """rasterio, bound to the file itself: no other files beside it are read or written, and little is cached."""
    try:
        import rasterio
    except ImportError:
        raise DataError(
            f"{path}: a georeferenced or large TIFF, which is read by windows, and rasterio is not installed; "
            "install it with: pip install 'seenet[geo]'"
        ) from None
    from rasterio.errors import NotGeoreferencedWarning

    # GDAL reads this setting as megabytes, rasterio as bytes.
    settings = {"GDAL_CACHEMAX": CACHE, "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
    with rasterio.Env(**settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield rasterio


@contextmanager
def told(name: str) -> Iterator[None]:
    """What GDAL raises, in one line with the file's name."""
    from rasterio.errors import RasterioError

    try:
        yield
    except RasterioError as error:
        what = " ".join(str(error).split())[:160]
        raise DataError(f"{name}: cannot be read or written by windows ({what})", fix="copy it again, make room", kind="damaged") from None
