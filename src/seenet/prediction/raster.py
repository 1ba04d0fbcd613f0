"""Segment large and georeferenced TIFFs by windows, into GeoTIFFs."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from seenet.core.files import beside
from seenet.core.raster import RasterPicture, environment, gdal_errors
from seenet.prediction.result import blend, to_mask

if TYPE_CHECKING:
    from seenet.prediction.base import BasePredictor

OVERLAY_SIDE = 4096
"""Largest side of an overlay."""


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
        DataError: As `core.raster.opened_raster`, or the disk is full.
    """
    with predictor.reader.opened(path) as picture:
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
