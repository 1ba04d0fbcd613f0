from typing import Any

import numpy as np
import pytest
import torch

from seenet.core.errors import DataError, UsageError
from seenet.data.coco import COCO21
from seenet.experiments import panels
from seenet.experiments.panels import Row, panels_figure, write_panels
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
def figures(monkeypatch) -> list[tuple[list[Row], list[str], str | None]]:
    """Rows, names and split of the figures that are drawn."""
    made = []

    def figure(rows, names, labels, split):
        made.append((rows, names, split))
        return b"figure"

    monkeypatch.setattr(panels, "panels_figure", figure)
    return made


@pytest.fixture
def model(tmp_path) -> str:
    return str(save_small(tmp_path / "net.safetensors", "baseline"))


def test_the_last_models_best_rows_then_its_worst(tmp_path, monkeypatch, figures):
    pairs = [spotted(share, seed) for seed, share in enumerate((0.5, 0.0, 0.3, 0.1, 0.8))]
    void = (pairs[0][0], np.full((20, 20), LABELS.ignore, np.uint8))
    split = MemorySplit([*pairs, void])
    first, last = (Predictor(kind(3), LABELS, device="cpu") for kind in (Opposite, FirstChannel))
    files = [tmp_path / name / "model.safetensors" for name in ("one", "two")]
    models = [str(save_small(file, "baseline")) for file in files]
    monkeypatch.setattr(panels, "_open_split", lambda *_: split)
    monkeypatch.setattr(panels, "load", lambda file, *_, **__: last if file == files[1] else first)
    for count in (2, 4):
        write_panels(models, tmp_path / f"{count}.png", count=count)
    (rows, names, name), (more, *_) = figures
    assert (names, name) == (["one", "two"], "toy/val")
    expected = [("001", "best"), ("003", "best"), ("000", "worst"), ("004", "worst")]
    assert [(row.name.removeprefix("drive/"), row.side) for row in rows] == expected
    # No picture stands there twice, and none where nothing is scored.
    assert [row.name[-1] for row in more] == ["1", "3", "2", "0", "4"]
    assert np.array_equal(rows[0].masks[1], pairs[1][1])
    assert np.array_equal(rows[0].truth, pairs[1][1])
    split.pairs = [void]
    with pytest.raises(DataError, match="nothing is scored"):
        write_panels(models, tmp_path / "void.png")


def test_a_figure_shows_each_predictions_miou(monkeypatch):
    drawn = Drawn(monkeypatch, panels)
    image, truth = spotted(0.3, 0)
    wrong, void = image[:, :, 0], np.full_like(truth, LABELS.ignore)
    rows = [Row("x", image, [wrong, truth], truth, "best"), Row("y", image, [truth, truth], void)]
    panels_figure(rows, ["a", "b"], LABELS, "s")
    first, second = drawn.rows
    assert drawn.titles() == [["picture", "ground truth", "a", "b"], [""] * 4]
    ious = [
        ((truth == k) & (wrong == k)).sum() / ((truth == k) | (wrong == k)).sum() for k in range(3)
    ]
    notes = ["x", "", f"mIoU {100 * np.mean(ious):.1f} %", "mIoU 100.0 %"]
    assert [panel.note for panel in first] == notes
    assert second[2].note == "mIoU: nothing is scored"
    assert drawn.sides == ["best", ""]
    assert np.array_equal(first[2].picture, colourize(wrong, LABELS))
    assert "of b" in drawn.caption
    assert drawn.legend == ["sky", "road", "tree", "ignored"]


def test_pictures_of_the_user(tmp_path, figures, model):
    for index, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        save_scene(tmp_path / name / "0.png", index)
    save_scene(tmp_path / "a" / "1.png")
    images = [str(tmp_path / "a"), str(tmp_path / "b")]
    write_panels([model], tmp_path / "a.png", images=images, device="cpu")
    ((rows, names, split),) = figures
    assert (names, split) == (["net"], None)
    # Pictures of two folders may have one name.
    assert [row.name for row in rows] == [f"{images[0]}/0", "1", f"{images[1]}/0"]
    assert {(row.truth, row.side) for row in rows} == {(None, "")}


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
