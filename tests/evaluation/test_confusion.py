import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenet.core.errors import DataError
from seenet.evaluation.confusion import confusion_matrix


def slow_matrix(truth, prediction, num_classes, ignore):
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t != ignore:
            matrix[t, p] += 1
    return matrix


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(
        [(1, 255, "uint8"), (2, 2, "uint8"), (11, 11, "int64"), (21, 255, "uint8"),
         (21, -1, "int32"), (255, 255, "uint8"), (256, 65535, "uint16"), (300, -1, "int64")]
    ),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_matrix_equals_a_loop_over_pixels(labels, shape, ignored, seed):
    num_classes, ignore, dtype = labels
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, num_classes, (2, *shape))
    truth[rng.random(shape) < ignored] = ignore
    truth = truth.astype(dtype)
    prediction = prediction.astype(np.uint8 if num_classes <= 256 else np.uint16)
    matrix = confusion_matrix(truth, prediction, num_classes, ignore)
    assert matrix.dtype == np.int64
    assert np.array_equal(matrix, slow_matrix(truth, prediction, num_classes, ignore))


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.uint8([[0, 7, 7], [9, 255, 2]]), np.zeros((2, 3), np.uint8), r"7 \(2 .*9 \(1 "),
        (np.int32([[0, 7, 7], [9, 255, 2]]), np.zeros((2, 3), np.uint8), r"7 \(2 .*9 \(1 "),
        (np.int32([[-1, 0]]), np.zeros((1, 2), np.uint8), r"-1 \(1 pixels\)"),
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), r"\(3, 2\), expected \(2, 3\)"),
        (np.zeros((1, 1), np.uint8), np.full((1, 1), 3, np.uint8), "predicted id 3"),
    ],
)
def test_wrong_ids_and_sizes_are_refused(truth, prediction, message):
    with pytest.raises(DataError, match=f"frame 3: .*{message}"):
        confusion_matrix(truth, prediction, 3, 255, "frame 3")
