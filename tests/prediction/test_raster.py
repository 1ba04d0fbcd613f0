"""Large and georeferenced TIFFs, by windows."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.images import read_image
from seenet.prediction import raster
from seenet.prediction.batch import predict_files
from tests.prediction.geotiffs import expected, noise, predictor, rasterio, write


def test_what_is_large_goes_by_windows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.moveaxis(noise(3, 50, 40), 0, 2)
    Image.fromarray(image).save(tmp_path / "plain.tif")
    assert not raster.by_windows(tmp_path / "plain.tif")
    monkeypatch.setattr(raster, "LARGE", 1000)
    assert raster.by_windows(tmp_path / "plain.tif")
    predict_files(predictor(), [tmp_path / "plain.tif"], tmp_path / "out")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/plain.tif")), expected(image[:, :, 0]))


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (noise(1, 20, 30), {}),
        (noise(1, 20, 30), {"photometric": "MINISWHITE"}),
        (noise(1, 20, 30, np.uint16), {}),
        (noise(1, 20, 30, np.uint16), {"photometric": "MINISWHITE"}),
        (noise(1, 20, 30, np.uint16) >> 4, {"nbits": 12}),
        *[(noise(1, 20, 30) >> 8 - bits, {"nbits": bits}) for bits in (1, 2, 4)],
        *[(noise(1, 20, 30) >> 8 - bits, {"nbits": bits, "photometric": "MINISWHITE"}) for bits in (1, 2, 4)],
        (noise(2, 20, 30), {}),
        (noise(3, 20, 30), {}),
        (noise(4, 20, 30), {}),
        (noise(3, 20, 30), {"interleave": "band", "tiled": True, "blockxsize": 16, "blockysize": 16}),
        (noise(4, 20, 30), {"photometric": "CMYK"}),
    ],
)
def test_windows_are_what_the_one_decoder_reads(tmp_path: Path, values: np.ndarray, options: dict[str, Any]) -> None:
    write(tmp_path / "field.tif", values, **options)
    whole = read_image(tmp_path / "field.tif").astype(int)
    assert raster.by_windows(tmp_path / "field.tif") and whole.std() > 20
    with raster.opened_raster(tmp_path / "field.tif") as picture:
        # GDAL and Pillow round colours of CMYK each in its own way.
        assert abs(picture[2:9, 5:40] - whole[2:9, 5:40]).max() <= (options.get("photometric") == "CMYK")
        assert np.array_equal(picture[:, ::-1][2:9, 5:25], picture[0:20, 0:30][:, ::-1][2:9, 5:25])
        assert picture[0:5, 0:5].shape == (5, 5, 3)


@pytest.mark.parametrize(("values", "kind"), [(noise(3, 20, 30), "CIELAB"), (noise(4, 20, 30, np.uint16), "CMYK")])
def test_colours_that_are_not_read_by_windows(tmp_path: Path, values: np.ndarray, kind: str) -> None:
    write(tmp_path / "field.tif", values, photometric=kind)
    report = predict_files(predictor(), [tmp_path / "field.tif"], tmp_path / "out")
    assert "not read by windows; convert it to RGB" in report.failed[0][1]


def test_bands_that_say_nothing_of_colours(tmp_path: Path) -> None:
    """Of a satellite's the first three need not be red, green and blue."""
    write(tmp_path / "field.tif", noise(5, 20, 30))
    report = predict_files(predictor(), [tmp_path / "field.tif"], tmp_path / "out")
    assert "a TIFF that is truncated, or of bands, bits or a compression that are not read" in report.failed[0][1]


def test_palettes_and_copies_for_the_web(tmp_path: Path) -> None:
    write(tmp_path / "field.tif", np.tile(np.array([[[0, 1]]], np.uint8), (1, 100, 100)))
    with rasterio.open(tmp_path / "field.tif", "r+") as file:
        file.write_colormap(1, {0: (200, 1, 2), 1: (10, 3, 4)})
        file.build_overviews([2, 4])
    assert raster.by_windows(tmp_path / "field.tif")
    with raster.opened_raster(tmp_path / "field.tif") as picture:
        assert picture[0:1, 0:2].tolist() == [[[200, 1, 2], [10, 3, 4]]]


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "field.tif", noise(3, 40, 40))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    # A small one is read whole, without its place.
    assert predict_files(predictor(), [tmp_path / "field.tif"], tmp_path / "small").written == 1
    assert (tmp_path / "small/masks/field.png").is_file()
    monkeypatch.setattr(raster, "LARGE", 1000)
    report = predict_files(predictor(), [tmp_path / "field.tif"], tmp_path / "out")
    assert "pip install 'seenet[geo]'" in report.failed[0][1]


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "field.tif", noise(3, 40, 40))
    monkeypatch.setattr(raster, "MAX_PIXELS", 1000)
    with pytest.raises(DataError, match="1600 pixels, expected at most 1000"), raster.opened_raster(tmp_path / "field.tif"):
        pass
