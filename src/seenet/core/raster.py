"""Read large and georeferenced TIFFs, and TIFFs of any bands, by windows.

They are never whole in memory. Needs rasterio, the extra `geo`.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import EXTRASAMPLES, TiffImageFile

from seenet.core.arrays import finite_limits, no_range
from seenet.core.errors import DataError
from seenet.core.image_files import MAX_PIXELS, check_tile, safe_image_open, too_large
from seenet.core.images import eight_bits, from_pil, orientation, tiff_values

TIFFS = (".tif", ".tiff")
LARGE = 32_000_000
"""Pixels above which a TIFF is read by windows: whole it would take some 10 bytes a pixel."""
CACHE = 128_000_000
"""Bytes of decoded blocks that GDAL holds. If a row of blocks does not fit, each is decoded again
for every line.
"""
GEO_TAGS = (33550, 33922, 34264, 34735)
"""ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory (OGC 19-008r4, GeoTIFF 1.1,
section 7).
"""
_PREMULTIPLIED = 1
"""Value of ExtraSamples: the colours are multiplied by this alpha."""

ToBytes = Callable[[np.ndarray, str], np.ndarray]
"""Function that scales values H x W x C of any type to uint8; the name is for its errors."""


def window_pixels(path: Path, *, bands: bool = False) -> int:
    """Return the pixels of a picture that is read by windows; 0 if it is read whole.

    By windows are read TIFFs over `LARGE` pixels, and georeferenced ones while rasterio is
    installed, without an EXIF rotation. A file that cannot be opened is left to its reader, which
    reports the error.

    Args:
        path: The file.
        bands: It may have bands that only rasterio reads.
    """
    if path.suffix.lower() not in TIFFS:
        return 0
    try:
        if bands:
            with environment(path) as rasterio, _dataset(rasterio, path) as dataset:
                pixels = dataset.width * dataset.height
                plain = dataset.crs is None and dataset.transform.is_identity
                georeferenced = not plain or bool(dataset.gcps[0])
        else:
            with safe_image_open(path) as image:
                if not isinstance(image, TiffImageFile) or orientation(image) != 1:
                    return 0
                pixels = image.width * image.height
                georeferenced = any(tag in image.tag_v2 for tag in GEO_TAGS)
    except DataError:
        return 0
    windows = pixels > LARGE or (georeferenced and find_spec("rasterio") is not None)
    return pixels if windows else 0


@dataclass(frozen=True)
class TiffValues:
    """Encoding of a TIFF's values."""

    bits: int
    inverted: bool
    """0 is white."""
    premultiplied: bool
    """The colours are multiplied by alpha."""


class RasterPicture:
    """An H x W x C uint8 picture whose windows are read on demand: `picture[rows, columns]`.

    `picture[:, ::-1]` mirrors it. Without `channels` C is 3: the first three bands, or grey or
    palette from one. Values are converted as in `core.images`.

    Args:
        dataset: Of rasterio.
        name: For errors.
        values: Encoding of the values.
        channels: Numbers of the bands, from 1.
        to_bytes: Scales grey values, or those of `channels`; None: by the number of their bits.
    """

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(
        self,
        dataset: Any,
        name: str,
        values: TiffValues,
        channels: Sequence[int] | None = None,
        to_bytes: ToBytes | None = None,
        *,
        mirrored: bool = False,
    ) -> None:
        self._arguments = (dataset, name, values, channels, to_bytes)
        self.dataset, self.name, self.values, self.mirrored = dataset, name, values, mirrored
        self.to_bytes, self._own = to_bytes, channels is not None
        self.shape = (dataset.height, dataset.width, len(channels) if channels else 3)
        colours = 3 if dataset.count >= 3 else 1
        self._bands = list(channels or range(1, colours + 1 + values.premultiplied))
        self._palette: np.ndarray | None = None
        if channels is None and dataset.colorinterp[0].name == "palette":
            table = dataset.colormap(1)
            self._palette = np.array(
                [table.get(index, (0, 0, 0))[:3] for index in range(256)], np.uint8
            )

    def __getitem__(self, key: tuple[slice, slice]) -> Any:
        rows, columns = key
        if columns.step == -1:
            return RasterPicture(*self._arguments, mirrored=not self.mirrored)
        height, width, _ = self.shape
        top, bottom, _ = rows.indices(height)
        left, right, _ = columns.indices(width)
        if not self.mirrored:
            return self._read(((top, bottom), (left, right)))
        return self._read(((top, bottom), (width - right, width - left)))[:, ::-1]

    def reduced(self, height: int, width: int) -> np.ndarray:
        """Return a copy of height x width x C, sampled from the whole picture."""
        return self._read(None, out_shape=(len(self._bands), height, width))

    def _read(self, window: Any, **options: Any) -> np.ndarray:
        with gdal_errors(self.name):
            values = self.dataset.read(self._bands, window=window, **options)
        if self._palette is not None:
            return np.asarray(self._palette[values[0]])
        if self.to_bytes and (self._own or len(values) == 1):
            scaled = self.to_bytes(np.moveaxis(values, 0, 2), self.name)
            return scaled if self._own else np.repeat(scaled, 3, axis=2)
        if len(values) >= 3 and self.values.bits == 16:
            # Pillow takes the high byte of colours.
            values = (values >> 8).astype(np.uint8)
        else:
            values = eight_bits(values, self.values.bits, inverted=self.values.inverted)
        pixels = np.moveaxis(values, 0, 2)
        if self.values.premultiplied:
            mode, stored = ("La", "La") if len(values) == 2 else ("RGBA", "RGBa")
            size = (pixels.shape[1], pixels.shape[0])
            return from_pil(Image.frombytes(mode, size, pixels.tobytes(), "raw", stored), self.name)
        return pixels if len(values) == 3 else np.repeat(pixels, 3, axis=2)


@contextmanager
def opened_raster(
    path: Path, channels: Sequence[int] | None = None, to_bytes: ToBytes | None = None
) -> Iterator[RasterPicture]:
    """Open a TIFF to be read by windows.

    Args:
        path: The file.
        channels, to_bytes: As `RasterPicture`.

    Raises:
        DataError: rasterio is not installed, or the file is damaged, has several pages, is over the
            pixel limit, lacks a band, or has values or colours that are not read by windows.
    """
    values, page = _tiff_values(path) if channels is None else (TiffValues(8, False, False), 0)
    with environment(path) as rasterio, _dataset(rasterio, path, page) as dataset:
        name = str(path)
        if channels is not None:
            _check_bands(dataset, name, channels)
        elif to_bytes is None and dataset.dtypes[0] not in ("uint8", "uint16"):
            raise no_range(name, dataset.dtypes[0], _limits(dataset, name))
        yield RasterPicture(dataset, name, values, channels, to_bytes)


@contextmanager
def _dataset(rasterio: Any, path: Path, page: int = 0) -> Iterator[Any]:
    file = os.path.abspath(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected a picture", kind="missing")
    with gdal_errors(str(path)):
        dataset = rasterio.open(f"GTIFF_DIR:{page + 1}:{file}" if page else file, driver="GTiff")
    with dataset:
        yield dataset


def stored_alike(path: Path, bands: int) -> bool:
    """Return whether windows of a mask have the values that `core.images` reads.

    So do TIFFs with `window_pixels` of one band of 8 bits or more, or of red, green and blue.
    """
    if not window_pixels(path):
        return False
    with environment(path) as rasterio, _dataset(rasterio, path) as dataset:
        meaning = [band.name for band in dataset.colorinterp]
        if bands == 3:
            return meaning[:3] == ["red", "green", "blue"] and dataset.dtypes[0] == "uint8"
        bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
        inverted = dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
        return dataset.count == 1 and bits is None and not inverted


def sampled_bands(path: Path, side: int) -> tuple[np.ndarray, tuple[int, int], str]:
    """Look at a TIFF's bands.

    Returns:
        Values of at most side x side pixels, h x w x B as stored; as float64, NaN for none, where
        the file names a value for none. Height and width of the picture. Type of the values.

    Raises:
        DataError: as `opened_raster`.
    """
    with environment(path) as rasterio, _dataset(rasterio, path) as dataset:
        _check_bands(dataset, str(path), [1])
        shape = (dataset.height, dataset.width)
        size = tuple(min(side, length) for length in shape)
        with gdal_errors(str(path)):
            values = np.moveaxis(dataset.read(out_shape=(dataset.count, *size)), 0, 2)
        if dataset.nodata is not None:
            values = np.where(values == dataset.nodata, np.nan, values.astype(np.float64))
        return values, shape, str(dataset.dtypes[0])


def _check_bands(dataset: Any, name: str, channels: Sequence[int]) -> None:
    """Raise DataError for a TIFF that lacks a band, has several pages, or is too large."""
    if max(channels) > dataset.count:
        raise lacks_bands(name, dataset.count, channels)
    size = (dataset.width, dataset.height)
    if size[0] * size[1] > MAX_PIXELS:
        raise too_large(name, size)
    check_tile(name, max(rows * columns for rows, columns in dataset.block_shapes), size)
    if len(dataset.subdatasets) > 1:
        raise DataError(
            f"{name}: of several pages, expected one picture", fix="save one page", kind="animated"
        )


def lacks_bands(name: str, count: int, channels: Sequence[int]) -> DataError:
    """Return the error for a picture of fewer bands than `channels` name."""
    return DataError(
        f"{name}: found {count} bands, expected at least {max(channels)}, since `channels` is "
        f"{list(channels)}",
        fix="change `channels`, or take the picture out",
        kind="format",
    )


def _tiff_values(path: Path) -> tuple[TiffValues, int]:
    """Return how to read a TIFF's values, and its page.

    Raises:
        DataError: The colours are of a kind that GDAL does not convert.
    """
    with safe_image_open(path) as image:
        bits, inverted = tiff_values(image)
        if image.mode == "LAB" or (image.mode == "CMYK" and bits != 8):
            raise DataError(
                f"{path}: {image.mode} colours of {bits} bits, which are not read by windows",
                fix="convert it to RGB",
                kind="format",
            )
        extra = image.tag_v2.get(EXTRASAMPLES, ()) if isinstance(image, TiffImageFile) else ()
        return TiffValues(bits, inverted, extra[:1] == (_PREMULTIPLIED,)), image.tell()


def _limits(dataset: Any, name: str) -> tuple[float, float] | None:
    """Return the smallest and largest finite value of the first band; None without a finite one."""
    limits: list[float] = []
    for _, window in dataset.block_windows(1):
        with gdal_errors(name):
            values = dataset.read(1, window=window)
        limits += finite_limits(values) or ()
    return (min(limits), max(limits)) if limits else None


@contextmanager
def environment(path: Path) -> Iterator[Any]:
    """Yield rasterio, set to read and write no other files beside this one, and to cache little."""
    try:
        import rasterio
    except ImportError:
        raise DataError(
            f"{path}: a georeferenced or large TIFF, which is read by windows, and rasterio is not "
            "installed; install it with: pip install 'seenet[geo]'"
        ) from None
    from rasterio.errors import NotGeoreferencedWarning

    # GDAL reads this setting as megabytes, rasterio as bytes.
    settings = {
        "GDAL_CACHEMAX": CACHE,
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        "GDAL_PAM_ENABLED": "NO",
    }
    with rasterio.Env(**settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield rasterio


@contextmanager
def gdal_errors(name: str) -> Iterator[None]:
    """Convert GDAL's exceptions into one line with the file's name."""
    from rasterio.errors import RasterioError

    try:
        yield
    except RasterioError as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"{name}: cannot be read or written by windows ({reason})",
            fix="copy it again, make room",
            kind="damaged",
        ) from None
