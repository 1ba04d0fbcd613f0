"""Large and georeferenced TIFFs, read and segmented by windows: they are never whole in memory.

Needs rasterio, the extra `geo`.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import EXTRASAMPLES, TiffImageFile

from seenet.core.arrays import no_range
from seenet.core.errors import DataError
from seenet.core.files import beside
from seenet.core.image_files import safe_image_open
from seenet.core.images import eight_bits, from_pil, orientation, tiff_values
from seenet.prediction.result import blend, to_mask

if TYPE_CHECKING:
    from seenet.prediction.base import BasePredictor

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
OVERLAY_SIDE = 4096
"""Largest side of an overlay."""


def by_windows(path: Path) -> bool:
    """Return whether a picture is a TIFF over `LARGE` pixels, or a georeferenced one while rasterio
    is installed.

    A picture with an EXIF rotation is read whole. A file that cannot be opened is left to its
    reader, which reports the error.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        with safe_image_open(path) as image:
            if not isinstance(image, TiffImageFile) or orientation(image) != 1:
                return False
            large = image.width * image.height > LARGE
            georeferenced = any(tag in image.tag_v2 for tag in GEO_TAGS)
    except DataError:
        return False
    return large or (georeferenced and find_spec("rasterio") is not None)


@dataclass(frozen=True)
class TiffValues:
    """Encoding of a TIFF's values."""

    bits: int
    inverted: bool
    """0 is white."""
    premultiplied: bool
    """The colours are multiplied by alpha."""


class RasterPicture:
    """An H x W x 3 uint8 picture whose windows are read on demand: `picture[rows, columns]`.

    `picture[:, ::-1]` mirrors it. It has the first three bands, or grey or palette from one. Values
    are converted as in `core.images`.
    """

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(
        self, dataset: Any, name: str, values: TiffValues, *, mirrored: bool = False
    ) -> None:
        self.dataset, self.name, self.values, self.mirrored = dataset, name, values, mirrored
        self.shape = (dataset.height, dataset.width, 3)
        colours = 3 if dataset.count >= 3 else 1
        self._bands = list(range(1, colours + 1 + values.premultiplied))
        self._palette: np.ndarray | None = None
        if dataset.colorinterp[0].name == "palette":
            table = dataset.colormap(1)
            self._palette = np.array(
                [table.get(index, (0, 0, 0))[:3] for index in range(256)], np.uint8
            )

    def __getitem__(self, key: tuple[slice, slice]) -> Any:
        rows, columns = key
        if columns.step == -1:
            return RasterPicture(self.dataset, self.name, self.values, mirrored=not self.mirrored)
        height, width, _ = self.shape
        top, bottom, _ = rows.indices(height)
        left, right, _ = columns.indices(width)
        if not self.mirrored:
            return self._read(((top, bottom), (left, right)))
        return self._read(((top, bottom), (width - right, width - left)))[:, ::-1]

    def reduced(self, height: int, width: int) -> np.ndarray:
        """Return a copy of height x width x 3, sampled from the whole picture."""
        return self._read(None, out_shape=(len(self._bands), height, width))

    def _read(self, window: Any, **options: Any) -> np.ndarray:
        with gdal_errors(self.name):
            values = self.dataset.read(self._bands, window=window, **options)
        if self._palette is not None:
            return np.asarray(self._palette[values[0]])
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
def opened_raster(path: Path) -> Iterator[RasterPicture]:
    """Open a TIFF to be read by windows.

    Raises:
        DataError: rasterio is not installed, or the file is damaged, has several pages, is over the
            pixel limit, or has values or colours that are not read by windows.
    """
    values, page = _tiff_values(path)
    file = os.path.abspath(path)
    if page:
        file = f"GTIFF_DIR:{page + 1}:{file}"
    with environment(path) as rasterio:
        with gdal_errors(str(path)):
            dataset = rasterio.open(file, driver="GTiff")
        with dataset:
            if dataset.dtypes[0] not in ("uint8", "uint16"):
                raise no_range(str(path), dataset.dtypes[0], _limits(dataset, str(path)))
            yield RasterPicture(dataset, str(path), values)


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
        values = values[np.isfinite(values)]
        if values.size:
            limits += [values.min(), values.max()]
    return (min(limits), max(limits)) if limits else None


@dataclass
class StoredResult:
    """A mask that is on disk already, under a temporary name, and a small overlay."""

    mask: Path
    overlay: Image.Image

    def write(self, kind: str, path: Path) -> None:
        """Write `masks` or `overlays` to `path`, each once, as `Result.write`."""
        if kind == "masks":
            self.mask.replace(path)
        else:
            self.overlay.save(path, format="jpeg", quality=90)


def segment(predictor: "BasePredictor", path: Path, mask: Path) -> StoredResult:
    """Segment a TIFF by windows into a GeoTIFF beside `mask`.

    The GeoTIFF has the input's coordinates and the classes' colours.

    Raises:
        DataError: As `opened_raster`, or the disk is full.
    """
    with opened_raster(path) as picture:
        temporary = beside(mask)
        try:
            with predictor.tile_bar(picture.shape[:2], path.name):
                return StoredResult(temporary, _write_mask(predictor, picture, temporary))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _write_mask(predictor: "BasePredictor", picture: RasterPicture, path: Path) -> Image.Image:
    """Write the mask to `path`; return the overlay."""
    source, labels = picture.dataset, predictor.labels
    height, width, _ = picture.shape
    factor = max(1, -(-max(height, width) // OVERLAY_SIDE))
    size = (-(-height // factor), -(-width // factor))
    one_byte = labels.num_classes <= 256
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 1,
        "dtype": "uint8" if one_byte else "uint16", "compress": "deflate",
        "tiled": True, "blockxsize": 256, "blockysize": 256, "bigtiff": "if_safer",
    }  # fmt: skip
    points, system = source.gcps
    if points:
        profile |= {"gcps": points, "crs": system}
    elif source.crs or not source.transform.is_identity:
        profile |= {"transform": source.transform, "crs": source.crs}
    any_picture: Any = picture
    top = 0
    with environment(path) as rasterio, gdal_errors(str(path)):
        with rasterio.open(os.path.abspath(path), "w", **profile) as mask:
            if one_byte:
                colours = enumerate(labels.palette())
                mask.write_colormap(
                    1, {index: (*map(int, colour), 255) for index, colour in colours}
                )
            for chunk in predictor.row_chunks(any_picture):
                ids = to_mask(chunk)
                mask.write(ids, 1, window=((top, top + len(ids)), (0, width)))
                top += len(ids)
        with rasterio.open(os.path.abspath(path)) as mask:
            sampled = mask.read(1, out_shape=size)
    return Image.fromarray(blend(picture.reduced(*size), sampled, labels))


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
