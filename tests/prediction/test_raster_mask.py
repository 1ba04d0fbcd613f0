"""Masks of large and georeferenced TIFFs, by windows."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import PartialError
from seenet.core.images import read_image
from seenet.prediction import raster_mask
from seenet.prediction.batch import predict_files
from tests.prediction.doubles import LABELS, red_predictor
from tests.prediction.geotiffs import expected, noise, rasterio, write


@pytest.mark.parametrize("flip", [False, True])
def test_the_mask_is_a_geotiff_in_the_same_place(tmp_path: Path, flip: bool) -> None:
    values = write(tmp_path / "field.tif", noise(3, 300, 170), tiled=True, blockxsize=64, blockysize=64)
    report = predict_files(red_predictor(flip=flip), [tmp_path / "field.tif"], tmp_path / "out")
    assert (report.written, report.failed) == (1, [])
    with rasterio.open(tmp_path / "out/masks/field.tif") as mask, rasterio.open(tmp_path / "field.tif") as source:
        assert (mask.crs, mask.transform, mask.shape) == (source.crs, source.transform, source.shape)
        assert np.array_equal(mask.read(1), expected(values[0]))
        assert mask.colormap(1)[1][:3] == LABELS.colours[1]
    with Image.open(tmp_path / "out/overlays/field.jpg") as overlay:
        assert overlay.size == (170, 300)
    assert {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()} == {"field.tif", "field.jpg", "manifest.json"}
    assert predict_files(red_predictor(flip=flip), [tmp_path / "field.tif"], tmp_path / "out").skipped == 1


def test_overlays_of_large_ones_are_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster_mask, "OVERLAY_SIDE", 100)
    write(tmp_path / "field.tif", np.repeat(np.linspace(0, 255, 250).astype(np.uint8)[None, :, None], 3, 0).repeat(130, 2))
    predict_files(red_predictor(), [tmp_path / "field.tif"], tmp_path / "out")
    overlay = read_image(tmp_path / "out/overlays/field.jpg")
    assert overlay.shape == (84, 44, 3)
    # Half grey, half the class's colour, which changes at a third and two thirds.
    for row, grey, colour in ((5, 15, LABELS.colours[0]), (42, 128, LABELS.colours[1]), (79, 240, LABELS.colours[2])):
        assert np.abs(overlay[row, 20].astype(int) - (grey + np.array(colour)) // 2).max() < 12


def test_what_cannot_be_read_is_one_line_and_the_rest_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "fields"
    folder.mkdir()
    write(folder / "a.tif", noise(3, 40, 40))
    write(folder / "float.tif", np.zeros((3, 40, 40), np.float32))
    write(folder / "cut.tif", noise(3, 400, 400))
    (folder / "cut.tif").write_bytes((folder / "cut.tif").read_bytes()[:100_000])
    report = predict_files(red_predictor(), [folder], tmp_path / "out")
    assert report.written == 1
    messages = {path.name: message for path, message in report.failed}
    assert set(messages) == {"float.tif", "cut.tif"}
    assert all(len(message.splitlines()) == 1 and name in message for name, message in messages.items())
    with pytest.raises(PartialError):
        report.check()
    assert sorted(path.name for path in (tmp_path / "out/masks").iterdir()) == ["a.tif"]


def test_probabilities_are_not_written(tmp_path: Path) -> None:
    write(tmp_path / "field.tif", noise(3, 40, 40))
    report = predict_files(red_predictor(), [tmp_path / "field.tif"], tmp_path / "out", probabilities=True)
    assert "leave --probabilities out" in report.failed[0][1]


def test_no_block_is_written_twice(tmp_path: Path) -> None:
    """What is written again goes to the file's end, and what was there is left as a hole."""
    write(tmp_path / "field.tif", noise(3, 600, 900))
    predict_files(red_predictor(), [tmp_path / "field.tif"], tmp_path / "out")
    mask = tmp_path / "out/masks/field.tif"
    with rasterio.open(mask) as file:
        write(tmp_path / "once.tif", file.read(), compress="deflate", tiled=True, blockxsize=256, blockysize=256)
    assert mask.stat().st_size < 1.1 * (tmp_path / "once.tif").stat().st_size
