"""Masks of pictures that are read by windows, written by windows."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seenet.core.files import beside
from seenet.core.labels import LabelSet
from seenet.prediction.base import BasePredictor
from seenet.prediction.raster import RasterPicture, environment, opened_raster, told
from seenet.prediction.result import blend, to_mask

OVERLAY_SIDE = 4096
"""Largest side of an overlay."""


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
        temporary = beside(place)
        try:
            with predictor.tile_bar(picture.shape[:2], path.name):
                return StoredResult(temporary, _write(predictor, picture, temporary))
        except BaseException:
            temporary.unlink(missing_ok=True)
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
    with environment(path) as rasterio, told(str(path)), rasterio.open(os.path.abspath(path), "w", **profile) as mask:
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
