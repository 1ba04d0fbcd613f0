"""Results: masks, colours, files, and scores that mean the same as arrays and as tensors."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from seenet.core.errors import DataError, NotFiniteError, UsageError
from seenet.core.labels import CAMVID11, LabelSet, voc_colours
from seenet.prediction.predictor import Predictor
from seenet.prediction.result import blend, colourize, negative_log_likelihood, to_mask, to_probabilities
from tests.prediction.doubles import LABELS, TinyNet


@pytest.fixture
def result():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    return Predictor(TinyNet(), LABELS, device="cpu")(image)


def test_probabilities_are_those_of_the_mask(result):
    assert result.probabilities.shape == (3, 20, 30)
    assert result.probabilities.dtype == np.float32
    np.testing.assert_allclose(result.probabilities.sum(0), 1, rtol=1e-5)
    assert np.array_equal(result.probabilities.argmax(0), result.mask)


def test_save_writes_what_can_be_read_back(result, tmp_path):
    paths = result.save(tmp_path, probabilities=True)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "masks/image.png",
        "overlays/image.jpg",
        "probabilities/image.npz",
    ]
    with Image.open(paths[0]) as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), result.mask)
        assert mask.getpalette()[:9] == [channel for colour in LABELS.colours for channel in colour]
    with Image.open(paths[1]) as overlay:
        assert overlay.size == (30, 20)
    with np.load(paths[2], allow_pickle=False) as stored:
        assert stored["probabilities"].dtype == np.float16
        np.testing.assert_allclose(stored["probabilities"], result.probabilities, atol=1e-3)
        assert list(stored["classes"]) == list(LABELS.classes)


def test_save_overwrites_only_when_told(result, tmp_path):
    result.save(tmp_path)
    with pytest.raises(DataError, match=r"overwrite"):
        result.save(tmp_path)
    assert len(result.save(tmp_path, overwrite=True)) == 2


@pytest.mark.parametrize("name", ["file.png", "file.JPG", "file.tif", "file.npz", "deep/file.webp"])
def test_save_makes_no_folder_with_the_name_of_a_file(result, tmp_path, name):
    with pytest.raises(UsageError, match="expected a folder"):
        result.save(tmp_path / name)
    with pytest.raises(UsageError, match="expected a folder"):
        result.save(str(tmp_path / name), overwrite=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / name).mkdir(parents=True)
    assert len(result.save(tmp_path / name)) == 2


def test_save_takes_folders_with_dots_and_no_file(result, tmp_path):
    assert len(result.save(tmp_path / "run.v2")) == 2
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UsageError, match="expected a folder"):
        result.save(tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "mine"


def test_notebooks_show_the_overlay(result):
    with Image.open(io.BytesIO(result._repr_png_())) as shown:
        assert np.array_equal(np.asarray(shown), np.asarray(result.overlay()))
    assert "20x30" in repr(result)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_colours_pixel_by_pixel_and_alike_for_every_integer_type(mask):
    drawn = colourize(mask, CAMVID11)
    for at, value in np.ndenumerate(mask):
        colour = CAMVID11.colours[value] if value < 11 else (255, 255, 255) if value == 11 else (0, 0, 0)
        assert tuple(drawn[at]) == colour
    for dtype in (np.uint16, np.int32, np.int64):
        assert np.array_equal(colourize(mask.astype(dtype), CAMVID11), drawn)


def test_ids_over_a_byte_and_negative_ignore():
    labels = LabelSet("many", tuple(map(str, range(300))), voc_colours(300), ignore=-1)
    drawn = colourize(np.array([[299, -1, 300]]), labels)
    assert tuple(drawn[0, 0]) == labels.colours[299]
    assert tuple(drawn[0, 1]) == (255, 255, 255)
    assert tuple(drawn[0, 2]) == (0, 0, 0)


@given(st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_blend_is_the_weighted_mean_and_shows_the_picture_where_ignored(alpha, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (5, 7, 3), np.uint8)
    mask = rng.integers(0, 12, (5, 7)).astype(np.uint8)
    drawn = blend(image, mask, CAMVID11, alpha)
    expected = image * (1 - alpha) + colourize(mask, CAMVID11) * alpha
    assert np.abs(drawn - expected)[mask != 11].max(initial=0) < 2.5
    assert np.array_equal(drawn[mask == 11], image[mask == 11])


SCORES = np.random.default_rng(0).normal(0, 40, (5, 7, 9)).astype(np.float32)
SCORES[1, 0] = SCORES[3, 0] = SCORES.max()  # two are equal


def test_masks_are_the_same_and_the_lower_id_wins() -> None:
    mask = to_mask(SCORES)
    assert mask.dtype == np.uint8
    assert (mask[0] == 1).all()
    assert np.array_equal(mask, to_mask(torch.from_numpy(SCORES)))


@pytest.mark.parametrize(("classes", "dtype"), [(3, np.uint8), (256, np.uint8), (257, np.uint16), (300, np.uint16)])
def test_mask_type_holds_every_class(classes, dtype):
    scores = np.zeros((classes, 2, 2), np.float32)
    scores[classes - 1] = 1
    for mask in (to_mask(scores), to_mask(torch.from_numpy(scores))):
        assert mask.dtype == dtype
        assert (mask == classes - 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_scores_that_are_no_numbers_are_told(value: float, kind: type) -> None:
    scores = SCORES.copy()
    scores[2, 3, 4] = value
    with pytest.raises(NotFiniteError):
        to_mask(kind(scores))


def test_probabilities_against_float64() -> None:
    wide = np.exp(SCORES.astype(np.float64) - SCORES.max(0))
    expected = wide / wide.sum(0)
    for scores in (SCORES, torch.from_numpy(SCORES)):
        found = to_probabilities(scores)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_likelihood_against_float64_and_torch() -> None:
    truth = np.random.default_rng(1).integers(0, 5, (7, 9)).astype(np.uint8)
    truth[2:4] = 255
    wide = SCORES.astype(np.float64)
    expected = 0.0
    for y, x in np.argwhere(truth != 255):
        expected += np.log(np.exp(wide[:, y, x] - wide[:, y, x].max()).sum()) + wide[:, y, x].max() - wide[truth[y, x], y, x]
    assert negative_log_likelihood(SCORES, truth, 255) == pytest.approx(expected, rel=1e-6)
    assert negative_log_likelihood(torch.from_numpy(SCORES), truth, 255) == pytest.approx(expected, rel=1e-6)
    nothing = np.full((7, 9), 255, np.uint8)
    assert negative_log_likelihood(SCORES, nothing, 255) == negative_log_likelihood(torch.from_numpy(SCORES), nothing, 255) == 0.0
