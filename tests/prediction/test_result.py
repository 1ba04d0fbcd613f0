import io

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.prediction.predictor import Predictor
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
