import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.cityscapes import CITYSCAPES19, CITYSCAPES_CATEGORIES, CITYSCAPES_TRAIN_IDS
from seenet.evaluation.confusion import confusion_matrix
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.metrics.cityscapes import AVERAGE_SIZES, CityscapesScores
from seenet.prediction.predictor import Predictor
from tests.evaluation.doubles import FirstChannel

LABEL_IDS = np.array(sorted(CITYSCAPES_TRAIN_IDS, key=CITYSCAPES_TRAIN_IDS.__getitem__), np.uint8)
INSTANCE_LABELS = (24, 25, 26, 27, 28, 29, 30, 31, 32, 33)


def write_frame(root: Path, name: str, instances: np.ndarray, prediction: np.ndarray) -> None:
    """One frame of a tree; the picture's bytes are the trainIds that `FirstChannel` answers with."""
    image = root / "leftImg8bit/val/ulm" / f"{name}_leftImg8bit.png"
    mask = root / "gtFine/val/ulm" / f"{name}_gtFine_labelIds.png"
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(prediction.astype(np.uint8)[:, :, None], 3, 2)).save(image)
    labels = np.where(instances >= 1000, instances // 1000, instances)
    Image.fromarray(labels.astype(np.uint8)).save(mask)
    Image.fromarray(instances.astype(np.uint16)).save(mask.with_name(f"{name}_gtFine_instanceIds.png"))


def make_tree(root: Path, seed: int, frames: int = 3, classes: int = 19) -> None:
    """Blocks of random labels: all 34 of the table, objects one by one and in groups, predictions right half the time."""
    rng = np.random.default_rng(seed)
    for frame in range(frames):
        labels = rng.integers(0, 34, (8, 10))
        single = np.isin(labels, INSTANCE_LABELS) & (rng.random(labels.shape) < 0.7)
        ids = np.where(single, labels * 1000 + rng.integers(0, 3, labels.shape), labels)
        instances = np.kron(ids, np.ones((4, 3), int))
        truth = np.array([CITYSCAPES_TRAIN_IDS.get(label, 0) for label in range(34)])[np.kron(labels, np.ones((4, 3), int))]
        noise = rng.integers(0, classes, truth.shape)
        write_frame(root, f"ulm_{frame:06d}_000019", instances, np.where(rng.random(truth.shape) < 0.5, truth, noise))


def official(pairs: list[tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch) -> dict:
    """What cityscapesScripts say of (prediction in labelIds, label) files."""
    script = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    # The script asks numpy for a function that newer ones have under another name alone.
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    monkeypatch.setattr(script.args, "quiet", True)
    monkeypatch.setattr(script.args, "JSONOutput", False)
    predictions, labels = ([str(path) for path in paths] for paths in zip(*pairs, strict=True))
    return script.evaluateImgLists(predictions, labels, script.args)


def same(ours: float | None, theirs: float) -> bool:
    return np.isnan(theirs) if ours is None else abs(ours - theirs) < 1e-6


def assert_equal(found: dict, expected: dict) -> None:
    for ours, theirs in (
        ("iou_class", "averageScoreClasses"), ("iiou_class", "averageScoreInstClasses"),
        ("iou_category", "averageScoreCategories"), ("iiou_category", "averageScoreInstCategories"),
    ):  # fmt: skip
        assert same(found[ours], expected[theirs]), ours
    for entries, iou, iiou in (
        (found["classes"], expected["classScores"], expected["classInstScores"]),
        (found["categories"], expected["categoryScores"], expected["categoryInstScores"]),
    ):
        for name, entry in entries.items():
            assert same(entry["iou"], iou[name]), name
            assert same(entry["iiou"], iiou[name]), name


def label_file(mask: Path, prediction: np.ndarray, folder: Path) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    path = folder / mask.name
    Image.fromarray(LABEL_IDS[prediction]).save(path)
    return path, mask


def scores(root: Path) -> tuple[dict, list]:
    split = open_split(DataSettings(kind="cityscapes", root=root), "val")
    predictor = Predictor(FirstChannel(19), CITYSCAPES19, device="cpu")
    found = evaluate(predictor, split, metrics={"cityscapes": CityscapesScores(split)})
    pairs = [label_file(split.paths(i)[1], predictor.mask(split.image(i)), root / "predictions") for i in range(len(split))]
    return found.result(), pairs


@pytest.mark.parametrize(("seed", "classes"), [(0, 19), (1, 19), (2, 4)])
def test_made_trees_equal_the_official_script(tmp_path, monkeypatch, seed, classes):
    make_tree(tmp_path, seed, classes=classes)
    result, pairs = scores(tmp_path)
    assert_equal(result["cityscapes"], official(pairs, monkeypatch))
    assert result["cityscapes"]["iou_class"] == result["miou"]
    assert result["cityscapes"]["iiou_missing"] is None
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_tree_without_objects(tmp_path, monkeypatch):
    write_frame(tmp_path, "ulm_000000_000019", np.full((4, 6), 7), np.zeros((4, 6)))
    result, pairs = scores(tmp_path)
    assert_equal(result["cityscapes"], official(pairs, monkeypatch))
    assert result["cityscapes"]["iiou_class"] is None
    assert result["cityscapes"]["iiou_missing"] is None


def test_real_frame_equals_the_official_script(shared, tmp_path, monkeypatch):
    root = shared / "data/cityscapes"
    split = open_split(DataSettings(kind="cityscapes", root=root), "val")
    metric, matrix, counts, pairs = CityscapesScores(split), np.zeros((19, 19), np.int64), [], []
    for index in range(len(split)):
        truth = split.read(index)[1]
        # As a network errs: objects moved by a few pixels, and some void called road.
        prediction = np.roll(np.where(truth == 255, 0, truth), (2, -3), (0, 1))
        prediction[truth == 24] = 12
        matrix += confusion_matrix(truth, prediction, 19, 255)
        counts.append(metric.count(index, truth, prediction))
        pairs.append(label_file(split.paths(index)[1], prediction, tmp_path))
    # The script looks for instanceIds beside the labels.
    found = metric.result(matrix, counts)
    assert found["iiou_class"] is not None
    assert_equal(found, official(pairs, monkeypatch))


def test_without_instance_files_iiou_is_null_and_says_why(tmp_path):
    make_tree(tmp_path, 4)
    whole = scores(tmp_path)[0]["cityscapes"]
    (tmp_path / "gtFine/val/ulm/ulm_000001_000019_gtFine_instanceIds.png").unlink()
    result = scores(tmp_path)[0]["cityscapes"]
    assert result["iiou_missing"].startswith("1 of 3 pictures have no")
    assert (result["iiou_class"], result["iiou_category"]) == (None, None)
    assert all(entry["iiou"] is None for entry in [*result["classes"].values(), *result["categories"].values()])
    assert (result["iou_class"], result["iou_category"]) == (whole["iou_class"], whole["iou_category"])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((3, 3), 24001, np.uint16), r"instanceIds\.png: 3x3 pixels, but its labels have 32x30"),
        (np.full((32, 30), 40001, np.uint16), r"id 40001 is no Cityscapes instanceId"),
    ],
)
def test_wrong_instance_files_are_named(tmp_path, array, message):
    make_tree(tmp_path, 5, frames=1)
    Image.fromarray(array).save(tmp_path / "gtFine/val/ulm/ulm_000000_000019_gtFine_instanceIds.png")
    with pytest.raises(DataError, match=message):
        scores(tmp_path)


def test_tables_are_the_official_ones():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    script = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    ours = {name: category for category, names in CITYSCAPES_CATEGORIES.items() for name in names}
    assert ours == {label.name: label.category for label in labels if not label.ignoreInEval}
    assert list(ours) == list(CITYSCAPES19.classes)
    scored = {label.name for label in labels if label.hasInstances and not label.ignoreInEval}
    assert {name: script.args.avgClassSize[name] for name in scored} == AVERAGE_SIZES
