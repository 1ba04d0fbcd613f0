"""Results: masks, colours, files, and scores that mean the same as arrays and as tensors."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy.special import softmax

from seenet.core.errors import DataError, NotFiniteError, UsageError
from seenet.core.labels import LabelSet, voc_colours
from seenet.data.camvid import CAMVID11
from seenet.prediction.predictor import Predictor
from seenet.prediction.result import (
    blend,
    colourize,
    negative_log_likelihood,
    to_mask,
    to_probabilities,
)
from tests.prediction.doubles import LABELS, TinyNet, picture


@pytest.fixture
def result():
    return Predictor(TinyNet(), LABELS, device="cpu")(picture(20, 30))


def test_saved_files_can_be_read_back(result, tmp_path):
    paths = result.save(tmp_path, probabilities=True)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "masks/image.png",
        "overlays/image.jpg",
        "probabilities/image.npz",
    ]
    with Image.open(paths[0]) as mask, Image.open(paths[1]) as overlay:
        assert (mask.mode, overlay.size) == ("P", (30, 20))
        assert np.array_equal(np.asarray(mask), result.mask)
        assert mask.getpalette()[:9] == [channel for colour in LABELS.colours for channel in colour]
    with np.load(paths[2], allow_pickle=False) as stored:
        assert stored["probabilities"].dtype == np.float16
        np.testing.assert_allclose(stored["probabilities"], result.probabilities, atol=1e-3)
        assert list(stored["classes"]) == list(LABELS.classes)
    with pytest.raises(DataError, match="overwrite"):
        result.save(tmp_path)
    assert len(result.save(tmp_path, overwrite=True)) == 2


@pytest.mark.parametrize("name", ["file.png", "file.JPG", "file.npz", "deep/file.webp", "notes"])
def test_a_folder_with_the_name_of_a_file_is_not_made(result, tmp_path, name):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UsageError, match="expected a folder"):
        result.save(tmp_path / name, overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["notes"]
    (tmp_path / "notes").unlink()
    (tmp_path / name).mkdir(parents=True)
    for folder in (name, "run.v2"):
        assert len(result.save(str(tmp_path / folder))) == 2


def test_notebooks_show_the_overlay(result):
    with Image.open(io.BytesIO(result._repr_png_())) as shown:
        assert np.array_equal(np.asarray(shown), np.asarray(result.overlay()))
    assert "20x30" in repr(result)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_colours_are_alike_for_every_integer_type(mask):
    drawn = colourize(mask, CAMVID11)
    for at, value in np.ndenumerate(mask):
        colours = (*CAMVID11.colours, (255, 255, 255), (0, 0, 0))
        assert tuple(drawn[at]) == colours[min(value, 12)]
    for dtype in (np.uint16, np.int32, np.int64):
        assert np.array_equal(colourize(mask.astype(dtype), CAMVID11), drawn)


def test_colours_of_ids_over_a_byte_and_of_a_negative_ignored_id():
    labels = LabelSet("many", tuple(map(str, range(300))), voc_colours(300), ignore=-1)
    drawn = colourize(np.array([[299, -1, 300]]), labels)
    assert drawn.tolist() == [[list(labels.colours[299]), [255, 255, 255], [0, 0, 0]]]


@given(st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_blend_is_the_weighted_mean_and_shows_the_picture_where_ignored(alpha, seed):
    image = picture(5, 7, seed)
    mask = np.random.default_rng(seed).integers(0, 12, (5, 7)).astype(np.uint8)
    drawn = blend(image, mask, CAMVID11, alpha)
    expected = image * (1 - alpha) + colourize(mask, CAMVID11) * alpha
    assert np.abs(drawn - expected)[mask != 11].max(initial=0) < 2.5
    assert np.array_equal(drawn[mask == 11], image[mask == 11])


SCORES = np.random.default_rng(0).normal(0, 40, (5, 7, 9)).astype(np.float32)
SCORES[1, 0] = SCORES[3, 0] = SCORES.max()  # two are equal
BOTH = pytest.mark.parametrize("kind", [np.array, torch.tensor])


@BOTH
def test_mask_probabilities_and_likelihood_against_float64(kind) -> None:
    mask = to_mask(kind(SCORES))
    assert (mask[0] == 1).all()
    assert np.array_equal(mask, SCORES.argmax(0))
    probabilities = to_probabilities(kind(SCORES))
    assert probabilities.dtype == np.float32
    expected = softmax(SCORES.astype(np.float64), axis=0)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    truth = np.random.default_rng(1).integers(0, 5, (7, 9)).astype(np.uint8)
    truth[2:4] = 255
    nats = -sum(np.log(expected[truth[y, x], y, x]) for y, x in np.argwhere(truth != 255))
    found = negative_log_likelihood(kind(SCORES), truth, 255)
    assert found == pytest.approx(nats, rel=1e-6)
    assert negative_log_likelihood(kind(SCORES), np.full_like(truth, 255), 255) == 0.0


@BOTH
@pytest.mark.parametrize(
    ("classes", "dtype"), [(3, np.uint8), (256, np.uint8), (257, np.uint16), (300, np.uint16)]
)
def test_the_type_of_a_mask_holds_every_class(kind, classes, dtype):
    scores = np.zeros((classes, 2, 2), np.float32)
    scores[classes - 1] = 1
    mask = to_mask(kind(scores))
    assert mask.dtype == dtype
    assert (mask == classes - 1).all()


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_an_error(kind, value) -> None:
    scores = SCORES.copy()
    scores[2, 3, 4] = value
    with pytest.raises(NotFiniteError):
        to_mask(kind(scores))
