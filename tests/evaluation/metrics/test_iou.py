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


def test_scores_by_hand():
    # 2 sky right, 1 sky predicted as road, 3 road right, 1 road predicted as class 4, 1 tree
    # predicted as sky; class 3 is absent, class 4 is only predicted.
    matrix = np.zeros((5, 5), np.int64)
    matrix[0, 0], matrix[0, 1], matrix[1, 1], matrix[2, 0], matrix[1, 4] = 2, 1, 3, 1, 1
    assert iou_scores(matrix) == {
        "miou": pytest.approx((2 / 4 + 3 / 5 + 0 + 0) / 4),
        "pixel_accuracy": 5 / 8,
        "mean_class_accuracy": pytest.approx((2 / 3 + 3 / 4 + 0) / 3),
        "frequency_weighted_iou": pytest.approx(3 / 8 * 0.5 + 4 / 8 * 0.6),
        "absent": [3],
        "iou": [2 / 4, 3 / 5, 0.0, None, 0.0],
        "accuracy": [2 / 3, 3 / 4, 0.0, None, None],
        "dice": [4 / 6, 6 / 8, 0.0, None, 0.0],
        "pixels": [3, 4, 1, 0, 0],
    }


def test_nothing_scored_gives_none_and_large_counts_stay_exact():
    nothing, large = iou_scores(np.zeros((2, 2), int)), iou_scores(np.int64([[2**40, 1], [0, 1]]))
    means = ("miou", "pixel_accuracy", "mean_class_accuracy", "frequency_weighted_iou")
    assert [nothing[key] for key in means] == [None] * 4
    assert nothing["absent"] == [0, 1]
    assert large["pixels"] == [2**40 + 1, 1]
    assert large["pixel_accuracy"] == (2**40 + 1) / (2**40 + 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**32 - 1), st.floats(0, 0.6))
def test_scores_equal_torchmetrics(num_classes, seed, void):
    rng = np.random.default_rng(seed)
    # Every class occurs, since torchmetrics has another rule for absent classes.
    truth = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, 200)])
    truth[num_classes:][rng.random(200) < void] = 255
    prediction = rng.integers(0, num_classes, truth.shape)
    matrix = confusion_matrix(truth, prediction.astype(np.uint8), num_classes, 255)
    pair = torch.from_numpy(prediction), torch.from_numpy(truth)
    options = {"num_classes": num_classes, "ignore_index": 255}
    assert np.array_equal(matrix, multiclass_confusion_matrix(*pair, **options).numpy())
    result = iou_scores(matrix)
    for key, metric, average in (
        ("miou", multiclass_jaccard_index, "macro"),
        ("pixel_accuracy", multiclass_accuracy, "micro"),
        ("mean_class_accuracy", multiclass_accuracy, "macro"),
        ("frequency_weighted_iou", multiclass_jaccard_index, "weighted"),
    ):
        expected = float(metric(*pair, average=average, **options))
        assert result[key] == pytest.approx(expected, abs=1e-6)
