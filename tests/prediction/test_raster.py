"""Large and georeferenced TIFFs, read by windows, and their masks."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.images import read_encoded, read_image
from seenet.prediction import raster
from seenet.prediction.batch import predict_files
from tests.core.tiffs import Page, long, tiff_of
from tests.prediction.doubles import LABELS, red_predictor

rasterio = pytest.importorskip("rasterio")


def write(path: Path, values: np.ndarray, **options: Any) -> np.ndarray:
    """Write bands x H x W as a GeoTIFF in UTM 33, a quarter of a metre a pixel."""
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


def expected(red: np.ndarray) -> np.ndarray:
    """The mask of `RedNet`."""
    return np.where(red < 85, 0, np.where(red <= 170, 1, 2))


@pytest.fixture
def field(tmp_path: Path) -> Path:
    return tmp_path / "field.tif"


def failure(path: Path) -> str:
    """The message with which `predict_files` lists a picture."""
    ((_, message),) = predict_files(red_predictor(), [path], path.parent / "failed").failed
    return message


def test_large_files_are_read_by_windows_too(field: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.moveaxis(noise(3, 50, 40), 0, 2)).save(field)
    assert not raster.by_windows(field)
    monkeypatch.setattr(raster, "LARGE", 1000)
    assert raster.by_windows(field)
    assert predict_files(red_predictor(), [field], field.parent / "out").written == 1
    assert (field.parent / "out/masks/field.tif").is_file()


def read_alike(path: Path, rounding: int = 0) -> np.ndarray:
    """Compare windows, mirrored ones too, with what the one decoder reads, and return that."""
    whole = read_image(path).astype(int)
    assert np.array_equal(read_encoded(path.read_bytes(), path.name), whole)
    assert raster.by_windows(path)
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


RGB, DEFLATE, BANDS = {"photometric": "RGB"}, {"compress": "deflate"}, {"interleave": "band"}
WHITE_IS_0, PREMULTIPLIED = {"photometric": "MINISWHITE"}, {"alpha": "PREMULTIPLIED"}
TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16}


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
    write(field, values, **{"interleave": "pixel", **options})
    # GDAL and Pillow round colours of CMYK each in its own way.
    assert read_alike(field, rounding=int(options.get("photometric") == "CMYK")).std() > 20


def test_palettes_are_applied(field: Path) -> None:
    write(field, np.tile(np.array([[[0, 1]]], np.uint8), (1, 100, 100)))
    with rasterio.open(field, "r+") as file:
        file.write_colormap(1, {0: (200, 1, 2), 1: (10, 3, 4)})
        file.build_overviews([2, 4])
    assert read_alike(field)[0, :2].tolist() == [[200, 1, 2], [10, 3, 4]]


@pytest.mark.parametrize("compress", [{}, DEFLATE])
def test_smaller_copies_and_masks_are_not_pages(field: Path, compress: dict[str, str]) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        pixels = write(field, noise(3, 40, 50), **TILED, **compress)
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


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (noise(3, 20, 30), {"photometric": "CIELAB"}, "not read by windows"),
        (noise(4, 20, 30, np.uint16), {"photometric": "CMYK"}, "not read by windows"),
        # Of a satellite's bands the first three need not be red, green and blue.
        (noise(5, 20, 30), {}, "bands"),
    ],
)
def test_unknown_colours_are_refused(
    field: Path, values: np.ndarray, options: dict[str, Any], message: str
) -> None:
    write(field, values, **options)
    assert message in failure(field)


BOTH_SIGNS = [-3, 104]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        *(
            (np.array([[BOTH_SIGNS]], dtype), {}, "from -3 to 104")
            for dtype in (np.float32, np.int16, np.int32, np.int8)
        ),
        (np.array([[[0, 104]]], np.uint32), {}, "from 0 to 104"),
        (np.array([[[np.nan, -np.inf]]], np.float32), {}, "none of them finite"),
        (np.array([[[2, np.nan, -np.inf]]], np.float32), {}, "from 2 to 2"),
        # Pillow reads something else from these, without an error.
        *(
            (noise(bands, 20, 30, dtype), BANDS | options, "bands of 16 bits or with alpha")
            for bands, dtype, options in (
                (3, np.uint16, {}),
                (3, np.uint16, TILED),
                (4, np.uint16, RGB),
                (2, np.uint8, {"alpha": "NON-PREMULTIPLIED"}),
                (4, np.uint8, RGB | PREMULTIPLIED),
                (2, np.uint8, PREMULTIPLIED),
                (2, np.uint8, PREMULTIPLIED | DEFLATE),
            )
        ),
    ],
)
def test_what_the_one_decoder_refuses_is_refused_alike(
    field: Path, values: np.ndarray, options: dict[str, Any], message: str
) -> None:
    write(field, values, **options)
    assert raster.by_windows(field) == (not options)
    with pytest.raises(DataError, match=message) as caught:
        read_image(field)
    assert (failure(field), caught.value.kind) == (str(caught.value), "format")


def test_without_the_extra_the_error_names_it(field: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(field, noise(3, 40, 40))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    # A small one is read whole, without its coordinates.
    assert predict_files(red_predictor(), [field], field.parent / "small").written == 1
    assert (field.parent / "small/masks/field.png").is_file()
    monkeypatch.setattr(raster, "LARGE", 1000)
    assert "pip install 'seenet[geo]'" in failure(field)


@pytest.mark.parametrize("flip", [False, True])
def test_the_mask_is_a_geotiff_in_the_same_place(field: Path, flip: bool) -> None:
    values = write(field, noise(3, 300, 170), tiled=True, blockxsize=64, blockysize=64)
    out = field.parent / "out"
    report = predict_files(red_predictor(flip=flip), [field], out)
    assert (report.written, report.failed) == (1, [])
    with rasterio.open(out / "masks/field.tif") as mask, rasterio.open(field) as source:
        assert (mask.crs, mask.transform, mask.shape) == (
            source.crs,
            source.transform,
            source.shape,
        )
        assert np.array_equal(mask.read(1), expected(values[0]))
        assert mask.colormap(1)[1][:3] == LABELS.colours[1]
    with Image.open(out / "overlays/field.jpg") as overlay:
        assert overlay.size == (170, 300)
    files = {path.name for path in out.rglob("*") if path.is_file()}
    assert files == {"field.tif", "field.jpg", "manifest.json"}
    assert predict_files(red_predictor(flip=flip), [field], out).skipped == 1


def test_overlays_of_large_pictures_are_reduced(
    field: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raster, "OVERLAY_SIDE", 100)
    greys = np.linspace(0, 255, 250).astype(np.uint8)
    write(field, np.repeat(greys[None, :, None], 3, 0).repeat(130, 2))
    predict_files(red_predictor(), [field], field.parent / "out")
    overlay = read_image(field.parent / "out/overlays/field.jpg")
    assert overlay.shape == (84, 44, 3)
    # Half grey, half the class's colour, which changes at a third and two thirds.
    for row, grey, colour in zip((5, 42, 79), (15, 128, 240), LABELS.colours, strict=True):
        assert np.abs(overlay[row, 20].astype(int) - (grey + np.array(colour)) // 2).max() < 12


def test_a_damaged_file_is_one_line_and_leaves_no_mask(field: Path) -> None:
    write(field, noise(3, 400, 400))
    field.write_bytes(field.read_bytes()[:100_000])
    message = failure(field)
    assert field.name in message and "\n" not in message
    assert not list((field.parent / "failed").rglob("*.tif"))


def test_probabilities_are_not_written(field: Path) -> None:
    write(field, noise(3, 40, 40))
    report = predict_files(red_predictor(), [field], field.parent / "out", probabilities=True)
    assert "leave --probabilities out" in report.failed[0][1]
