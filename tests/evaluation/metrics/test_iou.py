import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
)

from seenet.evaluation.confusion import confusion_matrix
from seenet.evaluation.metrics.iou import iou_scores


def test_by_hand():
    # 2 sky right, 1 sky called road, 3 road right, 1 tree called sky; class 3 absent, class 4 only predicted.
    matrix = np.zeros((5, 5), np.int64)
    matrix[0, 0], matrix[0, 1], matrix[1, 1], matrix[2, 0], matrix[1, 4] = 2, 1, 3, 1, 1
    result = iou_scores(matrix)
    assert result["iou"] == [2 / 4, 3 / 5, 0.0, None, 0.0]
    assert result["absent"] == [3]
    assert result["miou"] == pytest.approx((2 / 4 + 3 / 5 + 0 + 0) / 4)
    assert result["accuracy"] == [2 / 3, 3 / 4, 0.0, None, None]
    assert result["mean_class_accuracy"] == pytest.approx((2 / 3 + 3 / 4 + 0) / 3)
    assert result["pixel_accuracy"] == 5 / 8
    assert result["dice"] == [4 / 6, 6 / 8, 0.0, None, 0.0]
    assert result["frequency_weighted_iou"] == pytest.approx(3 / 8 * 0.5 + 4 / 8 * 0.6)
    assert result["pixels"] == [3, 4, 1, 0, 0]


def test_nothing_scored_gives_none_not_nan():
    result = iou_scores(np.zeros((2, 2), np.int64))
    assert result["miou"] is None
    assert result["pixel_accuracy"] is None
    assert result["frequency_weighted_iou"] is None
    assert result["absent"] == [0, 1]


def test_counts_beyond_32_bits_stay_exact():
    result = iou_scores(np.array([[2**40, 1], [0, 2**40]], np.int64))
    assert result["pixels"] == [2**40 + 1, 2**40]
    assert result["pixel_accuracy"] == 2**41 / (2**41 + 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**32 - 1), st.floats(0, 0.6))
def test_equals_torchmetrics(num_classes, seed, void):
    rng = np.random.default_rng(seed)
    # Every class occurs, since torchmetrics' own rule for absent classes is another.
    truth = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, 200)])
    truth[num_classes:][rng.random(200) < void] = 255
    prediction = rng.integers(0, num_classes, truth.shape).astype(np.uint8)
    t, p = torch.from_numpy(truth), torch.from_numpy(prediction.astype(np.int64))
    matrix = confusion_matrix(truth, prediction, num_classes, 255)
    keywords = {"num_classes": num_classes, "ignore_index": 255}
    assert np.array_equal(matrix, multiclass_confusion_matrix(p, t, **keywords).numpy())
    result = iou_scores(matrix)
    assert result["miou"] == pytest.approx(float(multiclass_jaccard_index(p, t, average="macro", **keywords)), abs=1e-6)
    assert result["pixel_accuracy"] == pytest.approx(float(multiclass_accuracy(p, t, average="micro", **keywords)), abs=1e-6)
    assert result["mean_class_accuracy"] == pytest.approx(float(multiclass_accuracy(p, t, average="macro", **keywords)), abs=1e-6)
    assert result["frequency_weighted_iou"] == pytest.approx(
        float(multiclass_jaccard_index(p, t, average="weighted", **keywords)), abs=1e-6
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_renaming_classes_moves_their_numbers_along(num_classes, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, 50, (num_classes, num_classes)) * rng.integers(0, 2, (num_classes, num_classes))
    order = rng.permutation(num_classes)
    one, other = iou_scores(matrix), iou_scores(matrix[np.ix_(order, order)])
    assert other["iou"] == [one["iou"][k] for k in order]
    if one["miou"] is not None:
        assert other["miou"] == pytest.approx(one["miou"])
        assert 0 <= one["miou"] <= 1
        for dice, iou in zip(one["dice"], one["iou"], strict=True):
            assert dice is None if iou is None else dice == pytest.approx(2 * iou / (1 + iou))
