"""Masks of large and georeferenced TIFFs, which are read by windows."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seenet.core import raster
from seenet.core.errors import DataError
from seenet.core.images import read_image
from seenet.prediction import raster as writing
from seenet.prediction.batch import predict_files
from tests.core.tiffs import noise, write_geotiff
from tests.prediction.doubles import LABELS, red_predictor

rasterio = pytest.importorskip("rasterio")

RGB, DEFLATE, BANDS = {"photometric": "RGB"}, {"compress": "deflate"}, {"interleave": "band"}
WHITE_IS_0, PREMULTIPLIED = {"photometric": "MINISWHITE"}, {"alpha": "PREMULTIPLIED"}
TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16}


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
    assert not raster.window_pixels(field)
    monkeypatch.setattr(raster, "LARGE", 1000)
    assert raster.window_pixels(field)
    assert predict_files(red_predictor(), [field], field.parent / "out").written == 1
    assert (field.parent / "out/masks/field.tif").is_file()


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
    write_geotiff(field, values, **options)
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
    write_geotiff(field, values, **options)
    assert bool(raster.window_pixels(field)) == (not options)
    with pytest.raises(DataError, match=message) as caught:
        read_image(field)
    assert (failure(field), caught.value.kind) == (str(caught.value), "format")


def test_without_the_extra_the_error_names_it(field: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_geotiff(field, noise(3, 40, 40))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    # A small one is read whole, without its coordinates.
    assert predict_files(red_predictor(), [field], field.parent / "small").written == 1
    assert (field.parent / "small/masks/field.png").is_file()
    monkeypatch.setattr(raster, "LARGE", 1000)
    assert "pip install 'seenet[geo]'" in failure(field)


@pytest.mark.parametrize("flip", [False, True])
def test_the_mask_is_a_geotiff_in_the_same_place(field: Path, flip: bool) -> None:
    values = write_geotiff(field, noise(3, 300, 170), tiled=True, blockxsize=64, blockysize=64)
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
    monkeypatch.setattr(writing, "OVERLAY_SIDE", 100)
    greys = np.linspace(0, 255, 250).astype(np.uint8)
    write_geotiff(field, np.repeat(greys[None, :, None], 3, 0).repeat(130, 2))
    predict_files(red_predictor(), [field], field.parent / "out")
    overlay = read_image(field.parent / "out/overlays/field.jpg")
    assert overlay.shape == (84, 44, 3)
    # Half grey, half the class's colour, which changes at a third and two thirds.
    for row, grey, colour in zip((5, 42, 79), (15, 128, 240), LABELS.colours, strict=True):
        assert np.abs(overlay[row, 20].astype(int) - (grey + np.array(colour)) // 2).max() < 12


def test_a_damaged_file_is_one_line_and_leaves_no_mask(field: Path) -> None:
    write_geotiff(field, noise(3, 400, 400))
    field.write_bytes(field.read_bytes()[:100_000])
    message = failure(field)
    assert field.name in message and "\n" not in message
    assert not list((field.parent / "failed").rglob("*.tif"))


def test_probabilities_are_not_written(field: Path) -> None:
    write_geotiff(field, noise(3, 40, 40))
    report = predict_files(red_predictor(), [field], field.parent / "out", probabilities=True)
    assert "leave --probabilities out" in report.failed[0][1]
