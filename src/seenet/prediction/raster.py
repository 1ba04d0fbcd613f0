"""Large and georeferenced TIFFs, read and written by windows, so that no picture is ever whole in memory. rasterio is the extra `geo`."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from seenet.core.errors import DataError
from seenet.core.labels import LabelSet
from seenet.core.opening import MAX_PIXELS, opened
from seenet.prediction.base import BasePredictor
from seenet.prediction.colours import blend
from seenet.prediction.scores import to_mask

LARGE = 32_000_000
"""Pixels from which on a TIFF is read by windows: decoded whole it would take some 10 bytes each."""
OVERLAY_SIDE = 4096
"""Largest side of an overlay of a picture read by windows."""
CACHE_MEGABYTES = 128
GEO_TAGS = (33550, 33922, 34264, 34735)
"""ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory (OGC 19-008r4, GeoTIFF 1.1, section 7)."""
_ORIENTATION = 274


def by_windows(path: Path) -> bool:
    """Whether a picture is a TIFF over `LARGE` pixels, or georeferenced where rasterio is there; one that is turned (EXIF) is read whole.

    False as well for what cannot be opened, of which its reader will tell.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        # A GeoTIFF made for the web has smaller copies of itself as further pages.
        with opened(path, pages=True) as image:
            if not isinstance(image, TiffImageFile):
                return False
            tags = image.tag_v2
            turned = tags.get(_ORIENTATION, 1) != 1
            located = any(tag in tags for tag in GEO_TAGS) and find_spec("rasterio") is not None
            return not turned and (located or image.width * image.height > LARGE)
    except DataError:
        return False


class RasterPicture:
    """An H x W x 3 uint8 picture whose windows `picture[rows, columns]` are read when they are asked for; `picture[:, ::-1]` mirrors it.

    The first three bands, or grey or palette from one; 16 bits are divided by 257.
    """

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(self, dataset: Any, name: str, *, mirrored: bool = False) -> None:
        self.dataset, self.name, self.mirrored = dataset, name, mirrored
        self.shape = (dataset.height, dataset.width, 3)
        self._bands = [1, 2, 3] if dataset.count >= 3 else [1]
        self._table: np.ndarray | None = None
        if dataset.colorinterp[0].name == "palette":
            colours = dataset.colormap(1)
            self._table = np.array([colours.get(index, (0, 0, 0))[:3] for index in range(256)], np.uint8)

    def __getitem__(self, key: tuple[slice, slice]) -> Any:
        rows, columns = key
        if columns.step == -1:
            return RasterPicture(self.dataset, self.name, mirrored=not self.mirrored)
        (top, bottom, _), (left, right, _) = rows.indices(self.shape[0]), columns.indices(self.shape[1])
        if not self.mirrored:
            return self._read(((top, bottom), (left, right)))
        width = self.shape[1]
        return self._read(((top, bottom), (width - right, width - left)))[:, ::-1]

    def reduced(self, height: int, width: int) -> np.ndarray:
        """height x width x 3: every so manyth pixel."""
        return self._read(None, out_shape=(len(self._bands), height, width))

    def _read(self, window: Any, **options: Any) -> np.ndarray:
        with _told(self.name):
            values = self.dataset.read(self._bands, window=window, **options)
        if values.dtype == np.uint16:
            # As core.images: the full range maps to the full range.
            values = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        if self._table is not None:
            coloured: np.ndarray = self._table[values[0]]
            return coloured
        return np.moveaxis(values, 0, 2) if len(values) == 3 else np.repeat(values[0][:, :, None], 3, axis=2)


@contextmanager
def opened_raster(path: Path) -> Iterator[RasterPicture]:
    """The picture; DataError: rasterio is not installed, damaged, of several pages, over the pixel limit, or neither 8 nor 16 bits."""
    with _environment(path) as rasterio:
        with _told(str(path)):
            dataset = rasterio.open(os.path.abspath(path), driver="GTiff")
        with dataset:
            _check(path, dataset)
            yield RasterPicture(dataset, str(path))


def _check(path: Path, dataset: Any) -> None:
    pixels = dataset.width * dataset.height
    if pixels > MAX_PIXELS:
        raise DataError(f"{path}: {pixels} pixels, expected at most {MAX_PIXELS}", fix="cut it into tiles", kind="large")
    if len(dataset.subdatasets) > 1:
        raise DataError(f"{path}: of several pages, expected one picture", fix="save one page", kind="animated")
    if dataset.dtypes[0] not in ("uint8", "uint16"):
        raise DataError(f"{path}: values of type {dataset.dtypes[0]}, expected uint8 or uint16", fix="scale and convert it", kind="format")


@dataclass
class StoredResult:
    """A mask that is on disk already, beside its place, and a small overlay."""

    mask: Path
    overlay: Image.Image

    def write(self, kind: str, path: Path) -> None:
        """As `Result.write`, of masks and overlays; once."""
        if kind == "masks":
            self.mask.replace(path)
        else:
            self.overlay.save(path, format="jpeg", quality=90)


def segment(predictor: BasePredictor, path: Path, place: Path) -> StoredResult:
    """Segment a TIFF by windows into a GeoTIFF beside `place`, with the input's coordinates and the classes' colours.

    DataError as `opened_raster`, or the disk is full.
    """
    with opened_raster(path) as picture:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{place.name}.", suffix=place.suffix, dir=place.parent)
        os.close(handle)
        try:
            return StoredResult(Path(name), _write(predictor, picture, Path(name)))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _write(predictor: BasePredictor, picture: RasterPicture, path: Path) -> Image.Image:
    """The mask at `path`; returns the overlay."""
    source, labels = picture.dataset, predictor.labels
    height, width, _ = picture.shape
    factor = max(1, -(-max(height, width) // OVERLAY_SIDE))
    size = (-(-height // factor), -(-width // factor))
    rows, columns = (((np.arange(count) + 0.5) * length / count).astype(int) for count, length in zip(size, (height, width), strict=True))
    small, top = [], 0
    small_type = labels.num_classes <= 256
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint8" if small_type else "uint16",
        "compress": "deflate", "tiled": True, "blockxsize": 256, "blockysize": 256, "bigtiff": "if_safer",
    }  # fmt: skip
    points, system = source.gcps
    if points:
        profile |= {"gcps": points, "crs": system}
    elif source.crs or not source.transform.is_identity:
        profile |= {"transform": source.transform, "crs": source.crs}
    any_picture: Any = picture
    with _environment(path) as rasterio, _told(str(path)), rasterio.open(os.path.abspath(path), "w", **profile) as mask:
        if small_type:
            mask.write_colormap(1, _colormap(labels))
        for stripe in predictor.stripes(any_picture):
            ids = to_mask(stripe)
            bottom = top + len(ids)
            mask.write(ids, 1, window=((top, bottom), (0, width)))
            small.append(ids[rows[(rows >= top) & (rows < bottom)] - top][:, columns])
            top = bottom
    return Image.fromarray(blend(picture.reduced(*size), np.concatenate(small), labels))


def _colormap(labels: LabelSet) -> dict[int, tuple[int, ...]]:
    return {index: (*map(int, colour), 255) for index, colour in enumerate(labels.palette())}


@contextmanager
def _environment(path: Path) -> Iterator[Any]:
    """rasterio, bound to the file itself: no other files beside it are read or written, and little is cached."""
    try:
        import rasterio
    except ImportError:
        raise DataError(
            f"{path}: a georeferenced or large TIFF, which is read by windows, and rasterio is not installed; "
            "install it with: pip install 'seenet[geo]'"
        ) from None
    from rasterio.errors import NotGeoreferencedWarning

    settings = {"GDAL_CACHEMAX": CACHE_MEGABYTES, "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
    with rasterio.Env(**settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield rasterio


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What GDAL raises, in one line with the file's name."""
    from rasterio.errors import RasterioError

    try:
        yield
    except RasterioError as error:
        what = " ".join(str(error).split())[:160]
        raise DataError(f"{name}: cannot be read or written by windows ({what})", fix="copy it again, make room", kind="damaged") from None
