import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.cityscapes import CITYSCAPES19, CITYSCAPES_CATEGORIES, CITYSCAPES_TRAIN_IDS
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.metrics.cityscapes import AVERAGE_SIZES, CityscapesScores
from tests.evaluation.doubles import first_channel

LABEL_IDS = np.array(sorted(CITYSCAPES_TRAIN_IDS, key=CITYSCAPES_TRAIN_IDS.__getitem__), np.uint8)
TRAIN_IDS = np.array([CITYSCAPES_TRAIN_IDS.get(label, 0) for label in range(34)])
INSTANCES = "gtFine/val/ulm/{}_gtFine_instanceIds.png"
NAME = "ulm_{:06d}_000019"


def save(path: Path, array: np.ndarray, dtype: type = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(dtype)).save(path)


def write_frame(root: Path, frame: int, instances: np.ndarray, prediction: np.ndarray) -> None:
    """Write a frame; the image holds the trainIds that `first_channel` predicts."""
    name = NAME.format(frame)
    image = np.repeat(prediction[:, :, None], 3, 2)
    save(root / "leftImg8bit/val/ulm" / f"{name}_leftImg8bit.png", image)
    labels = np.where(instances >= 1000, instances // 1000, instances)
    save(root / "gtFine/val/ulm" / f"{name}_gtFine_labelIds.png", labels)
    save(root / INSTANCES.format(name), instances, np.uint16)


def write_tree(
    root: Path, seed: int, *, frames: int = 3, classes: int = 19, labels: int = 34
) -> None:
    """Write blocks of labels, instances and groups; half of the pixels are right."""
    rng = np.random.default_rng(seed)
    for frame in range(frames):
        blocks = rng.integers(0, labels, (8, 10))
        single = (blocks >= 24) & (rng.random(blocks.shape) < 0.7)
        ids = np.where(single, blocks * 1000 + rng.integers(0, 3, blocks.shape), blocks)
        truth = TRAIN_IDS[np.kron(blocks, np.ones((4, 3), int))]
        noise = rng.integers(0, classes, truth.shape)
        prediction = np.where(rng.random(truth.shape) < 0.5, truth, noise)
        write_frame(root, frame, np.kron(ids, np.ones((4, 3), int)), prediction)


def score(root: Path) -> tuple[dict, list[tuple[Path, Path]]]:
    """Return the result of a tree, and (prediction, label) files for the official script."""
    split = open_split(DataSettings(kind="cityscapes", root=root), "val")
    predictor = first_channel(CITYSCAPES19)
    found = evaluate(predictor, split, metrics={"cityscapes": CityscapesScores(split)})
    pairs = []
    for index in range(len(split)):
        mask = split.paths(index)[1]
        pairs.append((root / "predictions" / mask.name, mask))
        save(pairs[-1][0], LABEL_IDS[predictor.mask(split.image(index))])
    return found.result(), pairs


def assert_equal_to_official(found: dict, pairs: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with cityscapesScripts on files of predictions (labelIds) and labels."""
    script = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    # The script uses a function that newer versions of numpy have renamed.
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    monkeypatch.setattr(script.args, "quiet", True)
    monkeypatch.setattr(script.args, "JSONOutput", False)
    predictions, labels = ([str(path) for path in paths] for paths in zip(*pairs, strict=True))
    expected = script.evaluateImgLists(predictions, labels, script.args)
    # None becomes NaN.
    means = ("ScoreClasses", "ScoreInstClasses", "ScoreCategories", "ScoreInstCategories")
    keys = ("iou_class", "iiou_class", "iou_category", "iiou_category")
    pairs = [([found[key] for key in keys], [expected[f"average{mean}"] for mean in means])]
    for level, score in (("classes", "class"), ("categories", "category")):
        for key, kind in (("iou", "Scores"), ("iiou", "InstScores")):
            ours = [entry[key] for entry in found[level].values()]
            pairs.append((ours, [expected[f"{score}{kind}"][name] for name in found[level]]))
    for ours, theirs in pairs:
        np.testing.assert_allclose(np.array(ours, float), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("seed", "classes", "labels"), [(0, 19, 34), (1, 19, 34), (2, 4, 34), (3, 11, 24)]
)
def test_random_trees_equal_the_official_script(tmp_path, monkeypatch, seed, classes, labels):
    write_tree(tmp_path, seed, classes=classes, labels=labels)
    result, pairs = score(tmp_path)
    assert_equal_to_official(result["cityscapes"], pairs, monkeypatch)
    assert result["cityscapes"]["iou_class"] == result["miou"]
    assert result["cityscapes"]["iiou_missing"] is None
    # Labels below 24 and classes below 11 have no instances.
    assert (result["cityscapes"]["iiou_class"] is None) == (labels == 24)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_without_instance_files_iiou_is_null(tmp_path):
    write_tree(tmp_path, 4)
    whole = score(tmp_path)[0]["cityscapes"]
    (tmp_path / INSTANCES.format(NAME.format(1))).unlink()
    found = score(tmp_path)[0]["cityscapes"]
    assert found["iiou_missing"].startswith("1 of 3 images")
    assert found["iiou_class"] is None and found["iiou_category"] is None
    entries = [*found["classes"].values(), *found["categories"].values()]
    assert {entry["iiou"] for entry in entries} == {None}
    assert all(found[key] == whole[key] for key in ("iou_class", "iou_category"))


@pytest.mark.parametrize("array", [np.full((3, 3), 24001), np.full((32, 30), 40001)])
def test_wrong_instance_files_are_named(tmp_path, array):
    write_tree(tmp_path, 5, frames=1)
    save(tmp_path / INSTANCES.format(NAME.format(0)), array, np.uint16)
    with pytest.raises(DataError, match=r"ulm_000000_000019_gtFine_instanceIds\.png: "):
        score(tmp_path)


def test_tables_are_the_official_ones():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    script = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    ours = {name: category for category, names in CITYSCAPES_CATEGORIES.items() for name in names}
    assert ours == {label.name: label.category for label in labels if not label.ignoreInEval}
    assert list(ours) == list(CITYSCAPES19.classes)
    scored = {label.name for label in labels if label.hasInstances and not label.ignoreInEval}
    assert {name: script.args.avgClassSize[name] for name in scored} == AVERAGE_SIZES
