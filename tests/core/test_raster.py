"""Large and georeferenced TIFFs, read by windows, against the one decoder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seenet.core import raster
from seenet.core.images import read_image
from seenet.core.picture_reader import PLAIN
from tests.core.tiffs import Page, long, noise, tiff_of, write_geotiff

rasterio = pytest.importorskip("rasterio")

RGB, DEFLATE, BANDS = {"photometric": "RGB"}, {"compress": "deflate"}, {"interleave": "band"}
WHITE_IS_0, PREMULTIPLIED = {"photometric": "MINISWHITE"}, {"alpha": "PREMULTIPLIED"}
TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16}


@pytest.fixture
def field(tmp_path: Path) -> Path:
    return tmp_path / "field.tif"


def read_alike(path: Path, rounding: int = 0) -> np.ndarray:
    """Compare windows, mirrored ones too, with what the one decoder reads, and return that."""
    whole = read_image(path).astype(int)
    assert np.array_equal(PLAIN.decode(path.read_bytes(), path.name), whole)
    assert raster.window_pixels(path)
    with raster.opened_raster(path) as picture:
        assert abs(picture[2:9, 5:400] - whole[2:9, 5:]).max() <= rounding
        assert abs(picture[:, ::-1][0:9, 3:25] - whole[0:9, ::-1][:, 3:25]).max() <= rounding
        assert picture[0:5, 0:5].shape == picture.reduced(5, 5).shape == (5, 5, 3)
    return whole


def with_alpha(bands: int, dtype: type) -> np.ndarray:
    """Noise whose last band, alpha, has rows of the smallest and of the largest value."""
    values = noise(bands, 20, 30, dtype)
    values[-1, :5], values[-1, 5:9] = 0, np.iinfo(dtype).max
    return values


@pytest.mark.parametrize(
    ("values", "options"),
    [
        *((noise(bands, 20, 30), {}) for bands in (1, 2, 3, 4)),
        (noise(1, 20, 30), WHITE_IS_0),
        (noise(1, 20, 30, np.uint16), {}),
        (noise(1, 20, 30, np.uint16), WHITE_IS_0),
        (noise(1, 20, 30, np.uint16) >> 4, {"nbits": 12}),
        *((noise(1, 20, 30) >> 8 - bits, {"nbits": bits}) for bits in (1, 2, 4)),
        *((noise(1, 20, 30) >> 8 - bits, {"nbits": bits, **WHITE_IS_0}) for bits in (1, 2, 4)),
        (noise(3, 20, 30), {**BANDS, **TILED}),
        (noise(3, 20, 30), {**BANDS, **RGB}),
        (noise(3, 20, 30, np.uint16), {**BANDS, **RGB, **DEFLATE}),
        (noise(4, 20, 30, np.uint16), {**BANDS, **RGB, **DEFLATE}),
        (noise(4, 20, 30), {"photometric": "CMYK"}),
        *(
            (with_alpha(bands, dtype), {**PREMULTIPLIED, **options})
            for bands, dtype, options in (
                (2, np.uint8, {}),
                (2, np.uint8, DEFLATE),
                (4, np.uint8, RGB),
                (4, np.uint8, RGB | DEFLATE),
                (4, np.uint16, RGB),
                (4, np.uint16, RGB | DEFLATE),
                (4, np.uint8, RGB | DEFLATE | BANDS),
                (4, np.uint16, RGB | DEFLATE | BANDS),
            )
        ),
    ],
)
def test_windows_are_what_the_one_decoder_reads(
    field: Path, values: np.ndarray, options: dict[str, Any]
) -> None:
    write_geotiff(field, values, **{"interleave": "pixel", **options})
    # GDAL and Pillow round colours of CMYK each in its own way.
    assert read_alike(field, rounding=int(options.get("photometric") == "CMYK")).std() > 20


def test_palettes_are_applied(field: Path) -> None:
    write_geotiff(field, np.tile(np.array([[[0, 1]]], np.uint8), (1, 100, 100)))
    with rasterio.open(field, "r+") as file:
        file.write_colormap(1, {0: (200, 1, 2), 1: (10, 3, 4)})
        file.build_overviews([2, 4])
    assert read_alike(field)[0, :2].tolist() == [[200, 1, 2], [10, 3, 4]]


@pytest.mark.parametrize("compress", [{}, DEFLATE])
def test_smaller_copies_and_masks_are_not_pages(field: Path, compress: dict[str, str]) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        pixels = write_geotiff(field, noise(3, 40, 50), **TILED, **compress)
        with rasterio.open(field, "r+") as file:
            file.write_mask(np.indices((40, 50)).sum(0) > 9)
            file.build_overviews([2, 4])
    assert np.array_equal(read_alike(field), np.moveaxis(pixels, 0, 2))


@pytest.mark.parametrize("order", [1, -1], ids=["last", "first"])
def test_thumbnails_are_not_pages(field: Path, order: int) -> None:
    whole = np.moveaxis(noise(3, 40, 50), 0, 2)
    geo = {33550: (12, 3, np.array([0.5, 0.5, 0]).tobytes()), 33922: (12, 6, bytes(48))}
    pages = [Page(whole, geo), Page(np.ascontiguousarray(whole[::2, ::2]), {254: long(1)})]
    field.write_bytes(tiff_of(*pages[::order]))
    assert np.array_equal(read_alike(field), whole)
