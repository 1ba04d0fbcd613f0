import numpy as np
import pytest

from seenet.core.errors import DataError, UsageError
from seenet.data.coco import COCO21
from seenet.data.shapes import SHAPES, ShapesSplit
from seenet.evaluation.evaluator import evaluate
from seenet.experiments import panels
from seenet.experiments.panels import Row, panels_figure, write_panels
from seenet.prediction.colours import colourize
from seenet.prediction.predictor import Predictor
from tests.evaluation.doubles import LABELS, FirstChannel, MemorySplit
from tests.experiments.figures import save_scene, save_small

DATA = ["data.kind=shapes", "data.size=48"]


def spotted(share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of which a share of the pixels is predicted wrongly by `FirstChannel`."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, (20, 20)).astype(np.uint8)
    wrong = rng.random(truth.shape) < share
    image = np.where(wrong, (truth + 1) % 3, truth).astype(np.uint8)
    return np.repeat(image[:, :, None], 3, 2), truth


@pytest.fixture
def asked(monkeypatch) -> list:
    """The rows of figures; one model that is right everywhere but where the picture lies, on five pictures."""
    rows: list = []

    def figure(given, names, predictor, split):
        rows.append((list(given), list(names), split))
        return b"figure"

    monkeypatch.setattr(panels, "panels_figure", figure)
    return rows


def test_best_rows_then_the_worst_at_the_end(tmp_path, monkeypatch, asked):
    pairs = [spotted(share, seed) for seed, share in enumerate((0.5, 0.0, 0.3, 0.1, 0.8))]
    split = MemorySplit([*pairs, (pairs[0][0], np.full((20, 20), LABELS.ignore, np.uint8))])
    monkeypatch.setattr(panels, "_open", lambda *_: split)
    monkeypatch.setattr(panels, "load", lambda *_, **__: Predictor(FirstChannel(3), LABELS, device="cpu"))
    models = [str(save_small(tmp_path / name / "model.safetensors", "baseline")) for name in ("one", "two")]
    write_panels(models, tmp_path / "a.png", count=2)
    write_panels(models, tmp_path / "b.png", count=4)
    (rows, names, name), (more, *_) = asked
    assert (names, name) == (["one", "two"], "toy/val")
    assert [(row.name, row.side) for row in rows] == [
        ("drive/001", "best"), ("drive/003", "best"), ("drive/000", "worst"), ("drive/004", "worst"),
    ]  # fmt: skip
    # None stands there twice, and one where nothing is scored not at all.
    assert [row.name[-1] for row in more] == ["1", "3", "2", "0", "4"]
    assert np.array_equal(rows[0].masks[0], pairs[1][1])
    assert np.array_equal(rows[0].truth, pairs[1][1])


def test_a_figure_says_each_predictions_miou(monkeypatch):
    shown: list = []
    monkeypatch.setattr(panels, "panel_grid", lambda grid, caption, legend: shown.extend([grid, caption, legend]) or b"")
    image, truth = spotted(0.3, 0)
    wrong = image[:, :, 0]
    predictor = Predictor(FirstChannel(3), LABELS, device="cpu")
    void = np.full_like(truth, LABELS.ignore)
    panels_figure(
        [Row("x", image, [wrong, truth], truth, "best"), Row("y", image, [truth, truth], void, "worst")], ["a", "b"], predictor, "s"
    )
    (first, second), caption, legend = shown
    assert [panel.title for panel in first] == ["picture", "ground truth", "a", "b"]
    assert [panel.title for panel in second] == [""] * 4
    ious = [((truth == k) & (wrong == k)).sum() / ((truth == k) | (wrong == k)).sum() for k in range(3)]
    assert [panel.note for panel in first] == ["x", "", f"mIoU {100 * np.mean(ious):.1f} %", "mIoU 100.0 %"]
    assert second[2].note == "mIoU: nothing is scored"
    assert [panel.side for panel in first] == ["best", "", "", ""]
    assert np.array_equal(first[2].picture, colourize(wrong, LABELS))
    assert "of b" in caption
    assert [key.get_label() for key in legend] == ["sky", "road", "tree", "ignored"]


def test_ranked_by_the_last_models_own_score(tmp_path, monkeypatch, asked):
    split = ShapesSplit("val", 50, 48)
    few = MemorySplit([split.read(index) for index in range(4)], SHAPES)
    monkeypatch.setattr(panels, "_open", lambda *_: few)
    models = [str(save_small(tmp_path / f"{v}.safetensors", "baseline", seed=v)) for v in (0, 1)]
    write_panels(models, tmp_path / "a.png", count=1, device="cpu")
    scores = evaluate(panels.load(models[1], "cpu"), few).per_image
    ranked = sorted(scores, key=lambda score: score.miou(SHAPES.num_classes))
    assert [row.name for row in asked[0][0]] == [few.key(ranked[-1].index), few.key(ranked[0].index)]


def test_pictures_of_ones_own(tmp_path, asked):
    model = str(save_small(tmp_path / "net.safetensors", "baseline"))
    pictures = [str(save_scene(tmp_path / f"{index}.png", index)) for index in range(2)]
    write_panels([model], tmp_path / "a.png", images=pictures, device="cpu")
    ((rows, names, split),) = asked
    assert (names, split) == (["net"], None)
    assert [(row.name, row.truth, row.side) for row in rows] == [("0", None, ""), ("1", None, "")]


def test_pictures_of_two_folders_may_be_called_the_same(tmp_path, asked):
    model = str(save_small(tmp_path / "net.safetensors", "baseline"))
    for index, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        save_scene(tmp_path / name / "0.png", index)
    save_scene(tmp_path / "a" / "1.png")
    write_panels([model], tmp_path / "a.png", images=[str(tmp_path / "a"), str(tmp_path / "b")], device="cpu")
    assert [row.name for row in asked[0][0]] == [str(tmp_path / "a" / "0"), "1", str(tmp_path / "b" / "0")]


def test_what_is_refused(tmp_path, asked):
    model = str(save_small(tmp_path / "net.safetensors", "baseline"))
    other = str(save_small(tmp_path / "other.safetensors", "baseline", labels=COCO21))
    picture = str(save_scene(tmp_path / "a.png"))
    out = tmp_path / "figure.png"
    with pytest.raises(UsageError, match=r"net\.safetensors: knows other classes \(shapes\) than .*other\.safetensors \(coco21\)"):
        write_panels([model, other], out, images=[picture], device="cpu")
    with pytest.raises(UsageError, match="--images: pictures of your own"):
        write_panels([model], out, images=[picture], split="val")
    with pytest.raises(UsageError, match="--count 0"):
        write_panels([model], out, overrides=DATA, count=0)
    with pytest.raises(UsageError, match="no model"):
        write_panels([], out, overrides=DATA)
    with pytest.raises(UsageError, match="belongs to no run"):
        write_panels([model], out)
    with pytest.raises(DataError, match="the model knows 21 classes"):
        write_panels([other], out, overrides=[*DATA, "data.count=20"], device="cpu")
    out.write_bytes(b"mine")
    with pytest.raises(DataError, match="--overwrite"):
        write_panels([model], out, overrides=DATA)
    assert out.read_bytes() == b"mine"
    assert asked == []


def test_a_split_without_any_scored_pixel(tmp_path, monkeypatch):
    void = MemorySplit([(np.zeros((8, 8, 3), np.uint8), np.full((8, 8), LABELS.ignore, np.uint8))])
    monkeypatch.setattr(panels, "_open", lambda *_: void)
    monkeypatch.setattr(panels, "load", lambda *_, **__: Predictor(FirstChannel(3), LABELS, device="cpu"))
    model = str(save_small(tmp_path / "net.safetensors", "baseline"))
    with pytest.raises(DataError, match="nothing is scored"):
        write_panels([model], tmp_path / "a.png")
