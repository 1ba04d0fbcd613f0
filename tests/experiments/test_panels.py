from typing import Any

import numpy as np
import pytest
import torch

from seenet.core.errors import DataError, UsageError
from seenet.data.coco import COCO21
from seenet.experiments import panels
from seenet.experiments.panels import Row, write_panels
from seenet.prediction.predictor import Predictor
from seenet.prediction.result import colourize
from tests.evaluation.doubles import LABELS, FirstChannel, MemorySplit
from tests.experiments.figures import Drawn, save_scene, save_small

DATA = ["data.kind=shapes", "data.size=48"]


def spotted(share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture and truth; `FirstChannel` is wrong at a share of the pixels."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, (20, 20)).astype(np.uint8)
    wrong = rng.random(truth.shape) < share
    image = np.where(wrong, (truth + 1) % 3, truth).astype(np.uint8)
    return np.repeat(image[:, :, None], 3, 2), truth


class Opposite(FirstChannel):
    """Never right where `FirstChannel` is: it would rank the pictures the other way round."""

    def forward(self, *arguments: Any, **options: Any) -> torch.Tensor:
        return -super().forward(*arguments, **options)


@pytest.fixture
def drawn(monkeypatch) -> Drawn:
    return Drawn(monkeypatch, panels)


@pytest.fixture
def model(tmp_path) -> str:
    return str(save_small(tmp_path / "net.safetensors", "baseline"))


def test_the_last_models_best_rows_then_its_worst(tmp_path, monkeypatch, drawn):
    pairs = [spotted(share, seed) for seed, share in enumerate((0.5, 0.0, 0.3, 0.1, 0.8))]
    void = (pairs[0][0], np.full((20, 20), LABELS.ignore, np.uint8))
    split = MemorySplit([*pairs, void])
    first, last = (Predictor(kind(3), LABELS, device="cpu") for kind in (Opposite, FirstChannel))
    files = [tmp_path / name / "model.safetensors" for name in ("one", "two")]
    models = [str(save_small(file, "baseline")) for file in files]
    monkeypatch.setattr(panels, "_open_split", lambda *_: split)
    monkeypatch.setattr(panels, "load", lambda file, *_, **__: last if file == files[1] else first)
    write_panels(models, tmp_path / "4.png", count=4)
    # No picture stands there twice, and none where nothing is scored.
    assert [row[0].note[-1] for row in drawn.rows] == ["1", "3", "2", "0", "4"]
    write_panels(models, tmp_path / "2.png", count=2)
    assert [row[0].note for row in drawn.rows] == [f"drive/00{index}" for index in (1, 3, 0, 4)]
    assert drawn.sides == ["best", "best", "worst", "worst"]
    assert drawn.titles()[0] == ["picture", "ground truth", "one", "two"]
    assert drawn.caption.startswith("toy/val: ") and "of two" in drawn.caption
    for place in (1, 3):
        assert np.array_equal(drawn.rows[0][place].picture, colourize(pairs[1][1], LABELS))
    split.pairs = [void]
    with pytest.raises(DataError, match="nothing is scored"):
        write_panels(models, tmp_path / "void.png")


def test_a_figure_shows_each_predictions_miou(drawn):
    image, truth = spotted(0.3, 0)
    wrong, void = image[:, :, 0], np.full_like(truth, LABELS.ignore)
    rows = [Row("x", image, [wrong, truth], truth), Row("y", image, [truth, truth], void)]
    panels.panels_figure(rows, ["a", "b"], LABELS, "s")
    first, second = drawn.rows
    assert drawn.titles()[1] == [""] * 4
    ious = [
        ((truth == k) & (wrong == k)).sum() / ((truth == k) | (wrong == k)).sum() for k in range(3)
    ]
    notes = ["x", "", f"mIoU {100 * np.mean(ious):.1f} %", "mIoU 100.0 %"]
    assert [panel.note for panel in first] == notes
    assert second[2].note == "mIoU: nothing is scored"
    assert drawn.legend == ["sky", "road", "tree", "ignored"]


def test_pictures_of_the_user(tmp_path, drawn, model):
    for name in ("a/0", "a/1", "b/0"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_scene(tmp_path / f"{name}.png")
    images = [str(tmp_path / "a"), str(tmp_path / "b")]
    write_panels([model], tmp_path / "a.png", images=images, device="cpu")
    assert drawn.titles()[0] == ["picture", "net"] and drawn.caption == ""
    # Pictures of two folders may have one name.
    assert [row[0].note for row in drawn.rows] == [f"{images[0]}/0", "1", f"{images[1]}/0"]


def test_what_is_refused(tmp_path, model):
    other = str(save_small(tmp_path / "other.safetensors", "baseline", labels=COCO21))
    picture = str(save_scene(tmp_path / "a.png"))
    for models, options, error, message in (
        ([model, other], {"images": [picture]}, UsageError, r"\(shapes\) than .* \(coco21\)"),
        ([model], {"overrides": DATA, "count": 0}, UsageError, "--count 0"),
        ([other], {"overrides": [*DATA, "data.count=20"]}, DataError, "the model knows 21 classes"),
    ):
        with pytest.raises(error, match=message):
            write_panels(models, tmp_path / "figure.png", device="cpu", **options)
    assert not (tmp_path / "figure.png").exists()
