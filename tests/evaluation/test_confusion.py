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


@st.composite
def cases(draw):
    num_classes = draw(st.sampled_from([1, 2, 3, 11, 21, 256, 300]))
    ignore = draw(st.sampled_from([num_classes, 255, 65535, -1]).filter(lambda i: not 0 <= i < num_classes))
    dtype = draw(
        st.sampled_from([np.uint8, np.uint16, np.int32, np.int64]).filter(
            lambda d: np.iinfo(d).min <= ignore <= np.iinfo(d).max and num_classes - 1 <= np.iinfo(d).max
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, 12)))
    truth = rng.integers(0, num_classes, shape)
    truth[rng.random(shape) < draw(st.floats(0, 1))] = ignore
    prediction = rng.integers(0, num_classes, shape).astype(np.uint8 if num_classes <= 256 else np.uint16)
    return truth.astype(dtype), prediction, num_classes, ignore


@settings(max_examples=150, deadline=None)
@given(cases())
def test_matrix_equals_a_loop_over_pixels(case):
    matrix = confusion_matrix(*case)
    assert matrix.dtype == np.int64
    assert np.array_equal(matrix, slow_matrix(*case))
    assert matrix.sum() == (case[0] != case[3]).sum()


@settings(max_examples=50, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_order_of_pixels_and_cutting_in_parts_change_nothing(case, seed):
    truth, prediction, *rest = case
    order = np.random.default_rng(seed).permutation(truth.size)
    whole = confusion_matrix(*case)
    assert np.array_equal(whole, confusion_matrix(truth.ravel()[order], prediction.ravel()[order], *rest))
    half = truth.shape[0] // 2
    assert np.array_equal(
        whole,
        confusion_matrix(truth[:half], prediction[:half], *rest) + confusion_matrix(truth[half:], prediction[half:], *rest),
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_ids_that_are_no_class_are_named_with_their_pixels(dtype):
    truth = np.array([[0, 1, 7, 7], [200, 255, 2, 2]], dtype)
    with pytest.raises(DataError, match=r"frame 3: label ids 7 \(2 pixels\), 200 \(1 pixels\) .*0 to 2.* ignored \(255\)"):
        confusion_matrix(truth, np.zeros((2, 4), np.uint8), 3, 255, "frame 3")


def test_a_negative_id_is_no_class():
    with pytest.raises(DataError, match=r"-1 \(1 pixels\)"):
        confusion_matrix(np.array([[-1, 0]]), np.zeros((1, 2), np.uint8), 3, 255)


def test_sizes_and_predictions_out_of_range_are_refused():
    with pytest.raises(DataError, match=r"2x3.*3x2"):
        confusion_matrix(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 3, 255)
    with pytest.raises(DataError, match="predicted id 3"):
        confusion_matrix(np.zeros((1, 1), np.uint8), np.full((1, 1), 3, np.uint8), 3, 255)
