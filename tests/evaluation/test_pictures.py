import io

import numpy as np
import pytest
from PIL import Image

from seenet.core.labels import LabelSet, voc_colours
from seenet.data.camvid import CAMVID11
from seenet.evaluation.pictures import ERROR_COLOURS, confusion_figure, error_map, panel
from seenet.prediction.result import colourize


def test_error_map_has_right_wrong_and_ignored():
    truth, prediction = np.array([[0, 1, 11]], np.uint8), np.array([[0, 2, 3]], np.uint8)
    expected = [list(ERROR_COLOURS[kind]) for kind in ("right", "wrong", "ignored")]
    assert error_map(truth, prediction, CAMVID11).tolist() == [expected]


@pytest.mark.parametrize(
    ("size", "largest", "shape"),
    [((10, 14), 4096, (10, 14)), ((25, 40), 4096, (10, 14)), ((10, 14), 5, (4, 5))],
)
def test_panel_has_four_parts_side_by_side(monkeypatch, size, largest, shape):
    """The image is resized to the truth, and all parts are subsampled to the largest side."""
    monkeypatch.setattr("seenet.evaluation.pictures.PANEL_SIDE", largest)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    truth, prediction = rng.integers(0, 11, (2, 10, 14)).astype(np.uint8)
    truth[2] = CAMVID11.ignore
    drawn = np.asarray(panel(image, truth, prediction, CAMVID11))
    parts = [drawn[:, at * (shape[1] + 2) :][:, : shape[1]] for at in range(4)]
    step = -(-10 // shape[0])
    truth, prediction = truth[::step, ::step], prediction[::step, ::step]
    assert drawn.shape == (shape[0], 4 * shape[1] + 3 * 2, 3)
    assert size != (10, 14) or np.array_equal(parts[0], image[::step, ::step])
    assert np.array_equal(
        parts[1:],
        [
            colourize(truth, CAMVID11),
            colourize(prediction, CAMVID11),
            error_map(truth, prediction, CAMVID11),
        ],
    )


@pytest.mark.parametrize("count", [1, 11, 60])
def test_confusion_figure_is_a_png_for_any_number_of_classes(count):
    labels = LabelSet("some", tuple(f"class {k}" for k in range(count)), voc_colours(count))
    matrix = np.random.default_rng(0).integers(0, 100, (count, count))
    matrix[0] = 0
    with Image.open(io.BytesIO(confusion_figure(matrix, labels))) as figure:
        assert figure.format == "PNG"
        assert min(figure.size) > 200
        assert len(np.unique(np.asarray(figure.convert("L")))) > 3
