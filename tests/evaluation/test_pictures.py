import io

import numpy as np
import pytest
from PIL import Image

from seenet.core.labels import LabelSet, voc_colours
from seenet.data.camvid import CAMVID11
from seenet.evaluation.pictures import ERROR_COLOURS, colourize, confusion_figure, error_map, panel


def test_error_map_tells_right_wrong_and_ignored():
    truth = np.array([[0, 1, 11]], np.uint8)
    prediction = np.array([[0, 2, 3]], np.uint8)
    assert error_map(truth, prediction, CAMVID11).tolist() == [[list(ERROR_COLOURS[k]) for k in ("right", "wrong", "ignored")]]


@pytest.mark.parametrize("size", [(10, 14), (25, 40)])
def test_panel_has_the_four_side_by_side(size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    truth, prediction = rng.integers(0, 12, (10, 14)).astype(np.uint8), rng.integers(0, 11, (10, 14)).astype(np.uint8)
    drawn = np.asarray(panel(image, truth, prediction, CAMVID11))
    assert drawn.shape == (10, 4 * 14 + 3 * 2, 3)
    parts = [drawn[:, at * 16 : at * 16 + 14] for at in range(4)]
    assert np.array_equal(parts[1], colourize(truth, CAMVID11))
    assert np.array_equal(parts[2], colourize(prediction, CAMVID11))
    assert np.array_equal(parts[3], error_map(truth, prediction, CAMVID11))
    if size == (10, 14):
        assert np.array_equal(parts[0], image)


def test_panels_of_large_pictures_show_every_so_manyth_pixel(monkeypatch):
    monkeypatch.setattr("seenet.evaluation.pictures.PANEL_SIDE", 5)
    truth = np.random.default_rng(0).integers(0, 11, (10, 14)).astype(np.uint8)
    drawn = np.asarray(panel(np.zeros((10, 14, 3), np.uint8), truth, truth, CAMVID11))
    assert drawn.shape == (4, 4 * 5 + 3 * 2, 3)
    assert np.array_equal(drawn[:, 7:12], colourize(truth[::3, ::3], CAMVID11))


@pytest.mark.parametrize("count", [1, 11, 60])
def test_confusion_figure_is_a_png_that_grows_with_the_classes(count):
    labels = LabelSet("some", tuple(f"class {k}" for k in range(count)), voc_colours(count))
    matrix = np.random.default_rng(0).integers(0, 100, (count, count))
    matrix[0] = 0
    with Image.open(io.BytesIO(confusion_figure(matrix, labels))) as figure:
        assert figure.format == "PNG"
        assert min(figure.size) > 200
        assert len(np.unique(np.asarray(figure.convert("L")))) > 3
