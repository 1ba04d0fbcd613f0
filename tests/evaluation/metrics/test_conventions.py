import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.classification import multiclass_jaccard_index

from seenet.core.labels import LabelSet, voc_colours
from seenet.evaluation.confusion import confusion_matrix
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.metrics.conventions import TABLE, Conventions, miou_with_absent
from tests.evaluation.doubles import MemorySplit, first_channel, shown, split_of

LABELS = LabelSet("toy", ("sky", "road", "tree", "car", "bus"), voc_colours(5))
METRIC = Conventions(MemorySplit([], LABELS))


def pair(seed: int, size: tuple[int, int] = (40, 60)) -> tuple[np.ndarray, np.ndarray]:
    """Return ids of classes 0, 1 and 3, some ignored, and predictions that also have 2, never 4."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 3, 255], size).astype(np.uint8)
    right = (truth < 4) & (rng.random(size) < 0.7)
    return truth, np.where(right, truth, rng.integers(0, 4, size)).astype(np.uint8)


def torchmetrics_iou(pairs, absent: float) -> torch.Tensor:
    truth, prediction = (
        torch.from_numpy(np.concatenate([ids.ravel() for ids in side]).astype(np.int64))
        for side in zip(*pairs, strict=True)
    )
    return multiclass_jaccard_index(
        prediction, truth, 5, average=None, ignore_index=255, zero_division=absent
    )


def miou_by_convention(pairs) -> dict[tuple[str, str | float], float | None]:
    matrix = sum(confusion_matrix(*one, 5, 255) for one in pairs)
    rows = METRIC.result(matrix, [METRIC.count(0, *one) for one in pairs])
    assert [(row["size"], row["absent"], row["whose"]) for row in rows] == list(TABLE)
    return {(row["size"], row["absent"]): row["miou"] for row in rows}


def test_absent_classes_equal_torchmetrics():
    pairs = [pair(0), pair(1)]
    found = miou_by_convention(pairs)
    ignoring_nan = torchmetrics_iou(pairs, math.nan)
    for absent, expected in (
        (0.0, torchmetrics_iou(pairs, 0.0).mean()),
        (1.0, torchmetrics_iou(pairs, 1.0).mean()),
        ("left out", ignoring_nan.nanmean()),
    ):
        assert found["own", absent] == pytest.approx(float(expected), abs=1e-6)
    assert torch.isnan(ignoring_nan.mean())
    assert found["own", "NaN"] is None


@pytest.mark.parametrize("size", [(40, 60), (700, 610), (520, 521), (1, 3), (37, 91), (1041, 519)])
def test_resized_scores_equal_pillow_and_torchmetrics(size):
    height, width = (int(520 * side / min(size)) for side in size)
    resized = [
        np.asarray(Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST))
        for ids in pair(3, size)
    ]
    expected = torchmetrics_iou([tuple(resized)], math.nan)
    found = miou_by_convention([pair(3, size)])
    assert found["520", "left out"] == pytest.approx(float(expected.nanmean()), abs=1e-6)
    assert found["520", "NaN"] is None


def test_long_narrow_images_need_little_memory():
    ids = np.random.default_rng(0).integers(0, 5, (1, 100_000)).astype(np.uint8)
    pixels = METRIC.count(0, ids, ids).reshape(2, -1)[1]
    assert np.array_equal(pixels, 520 * 520 * np.bincount(ids[0]))


def test_nothing_scored():
    empty = np.zeros((5, 5), np.int64)
    found = [miou_with_absent(empty, absent) for absent in ("left out", 0.0, 1.0, "NaN")]
    assert found == [None, 0, 1, None]


def test_an_evaluation_has_the_table():
    truth, prediction = pair(0, (20, 30))
    split = split_of(truth, prediction, LABELS)
    evaluation = evaluate(first_channel(LABELS), split, metrics={"conventions": METRIC})
    result = evaluation.result()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert [row["miou"] for row in result["conventions"]] == list(
        miou_by_convention([(truth, prediction)]).values()
    )
    assert result["conventions"][0]["miou"] == result["miou"]
    text = shown(evaluation)
    for word in ("NaN", "count as 1", "mmsegmentation", "PaddleSeg", "Hugging Face"):
        assert word in text
