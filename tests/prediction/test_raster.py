"""Large and georeferenced TIFFs, by windows."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError, PartialError
from seenet.core.images import read_image
from seenet.prediction import raster
from seenet.prediction.batch import predict_files
from seenet.prediction.predictor import Predictor
from tests.prediction.doubles import LABELS, RedNet

rasterio = pytest.importorskip("rasterio")

INFO = {"file": "red.safetensors", "sha256": "0" * 64}


def predictor(**keywords: Any) -> Predictor:
    return Predictor(RedNet(), LABELS, device="cpu", info=INFO, **keywords)


def write(path: Path, values: np.ndarray, **options: Any) -> np.ndarray:
    """Bands x H x W as a GeoTIFF in UTM 33, a quarter of a metre a pixel."""
    transform = rasterio.transform.from_origin(500_000, 4_649_776, 0.25, 0.25)
    profile: dict[str, Any] = {"crs": "EPSG:32633", "transform": transform, **options}
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2], dtype=values.dtype, **profile
    ) as file:
        file.write(values)
    return values


def noise(bands: int, height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (bands, height, width), dtype)


def expected(red: np.ndarray) -> np.ndarray:
    return np.where(red < 85, 0, np.where(red <= 170, 1, 2))


@pytest.mark.parametrize("flip", [False, True])
def test_the_mask_is_a_geotiff_in_the_same_place(tmp_path: Path, flip: bool) -> None:
    values = write(tmp_path / "field.tif", noise(3, 300, 170), tiled=True, blockxsize=64, blockysize=64)
    report = predict_files(predictor(flip=flip), [tmp_path / "field.tif"], tmp_path / "out")
    assert (report.written, report.failed) == (1, [])
    with rasterio.open(tmp_path / "out/masks/field.tif") as mask, rasterio.open(tmp_path / "field.tif") as source:
        assert (mask.crs, mask.transform, mask.shape) == (source.crs, source.transform, source.shape)
        assert np.array_equal(mask.read(1), expected(values[0]))
        assert mask.colormap(1)[1][:3] == LABELS.colours[1]
    with Image.open(tmp_path / "out/overlays/field.jpg") as overlay:
        assert overlay.size == (170, 300)
    assert {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()} == {"field.tif", "field.jpg", "manifest.json"}
    assert predict_files(predictor(flip=flip), [tmp_path / "field.tif"], tmp_path / "out").skipped == 1


def test_overlays_of_large_ones_are_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "OVERLAY_SIDE", 100)
    write(tmp_path / "field.tif", np.repeat(np.linspace(0, 255, 250).astype(np.uint8)[None, :, None], 3, 0).repeat(130, 2))
    predict_files(predictor(), [tmp_path / "field.tif"], tmp_path / "out")
    overlay = read_image(tmp_path / "out/overlays/field.jpg")
    assert overlay.shape == (84, 44, 3)
    # Half grey, half the class's colour, which changes at a third and two thirds.
    for row, grey, colour in ((5, 15, LABELS.colours[0]), (42, 128, LABELS.colours[1]), (79, 240, LABELS.colours[2])):
        assert np.abs(overlay[row, 20].astype(int) - (grey + np.array(colour)) // 2).max() < 12


def test_what_is_large_goes_by_windows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.moveaxis(noise(3, 50, 40), 0, 2)
    Image.fromarray(image).save(tmp_path / "plain.tif")
    assert not raster.by_windows(tmp_path / "plain.tif")
    monkeypatch.setattr(raster, "LARGE", 1000)
    assert raster.by_windows(tmp_path / "plain.tif")
    predict_files(predictor(), [tmp_path / "plain.tif"], tmp_path / "out")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/plain.tif")), expected(image[:, :, 0]))


@pytest.mark.parametrize(
    ("values", "red"),
    [
        (noise(1, 20, 30), lambda values: values[0]),
        (noise(4, 20, 30), lambda values: values[0]),
        (noise(3, 20, 30, np.uint16), lambda values: ((values[0].astype(int) + 128) // 257).astype(np.uint8)),
    ],
)
def test_bands_and_depths(tmp_path: Path, values: np.ndarray, red: Any) -> None:
    write(tmp_path / "field.tif", values)
    with raster.opened_raster(tmp_path / "field.tif") as picture:
        assert np.array_equal(picture[2:9, 5:40][:, :, 0], red(values)[2:9, 5:40])
        assert np.array_equal(picture[:, ::-1][2:9, 5:25], picture[0:20, 0:30][:, ::-1][2:9, 5:25])
        assert picture[0:5, 0:5].shape == (5, 5, 3)


def test_palettes_and_copies_for_the_web(tmp_path: Path) -> None:
    write(tmp_path / "field.tif", np.tile(np.array([[[0, 1]]], np.uint8), (1, 100, 100)))
    with rasterio.open(tmp_path / "field.tif", "r+") as file:
        file.write_colormap(1, {0: (200, 1, 2), 1: (10, 3, 4)})
        file.build_overviews([2, 4])
    assert raster.by_windows(tmp_path / "field.tif")
    with raster.opened_raster(tmp_path / "field.tif") as picture:
        assert picture[0:1, 0:2].tolist() == [[[200, 1, 2], [10, 3, 4]]]


def test_what_cannot_be_read_is_one_line_and_the_rest_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "fields"
    folder.mkdir()
    write(folder / "a.tif", noise(3, 40, 40))
    write(folder / "float.tif", np.zeros((3, 40, 40), np.float32))
    write(folder / "cut.tif", noise(3, 400, 400))
    (folder / "cut.tif").write_bytes((folder / "cut.tif").read_bytes()[:100_000])
    report = predict_files(predictor(), [folder], tmp_path / "out")
    assert report.written == 1
    messages = {path.name: message for path, message in report.failed}
    assert set(messages) == {"float.tif", "cut.tif"}
    assert all(len(message.splitlines()) == 1 and name in message for name, message in messages.items())
    with pytest.raises(PartialError):
        report.check()
    assert sorted(path.name for path in (tmp_path / "out/masks").iterdir()) == ["a.tif"]


def test_probabilities_are_not_written(tmp_path: Path) -> None:
    write(tmp_path / "field.tif", noise(3, 40, 40))
    report = predict_files(predictor(), [tmp_path / "field.tif"], tmp_path / "out", probabilities=True)
    assert "leave --probabilities out" in report.failed[0][1]


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
