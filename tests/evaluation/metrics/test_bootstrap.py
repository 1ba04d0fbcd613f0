import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenet.evaluation.confusion import ImageScore, score_image
from seenet.evaluation.metrics.bootstrap import DRAWS, class_sums, draws, miou_interval
from seenet.evaluation.metrics.iou import iou_scores


def scored(images: int, num_classes: int, seed: int, *, boundary: str | None = None) -> list[ImageScore]:
    """Noise with rare classes, so that draws differ in which classes they hold."""
    rng = np.random.default_rng(seed)
    scores = []
    for index in range(images):
        truth = rng.integers(0, rng.integers(1, num_classes + 1), (6, 7)).astype(np.uint8)
        truth[rng.random(truth.shape) < rng.choice([0.1, 1], p=[0.8, 0.2])] = 255
        prediction = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, num_classes, truth.shape))
        prediction = np.minimum(prediction, num_classes - 1).astype(np.uint8)
        scores.append(score_image(index, truth, prediction, num_classes, 255, boundary=boundary, widths=(1, 2) if boundary else ()))
    return scores


def slow_interval(scores: list[ImageScore], num_classes: int, classes: list[int]) -> tuple[float, float] | None:
    """Definitions, draw by draw, from whole matrices."""
    matrices = [score.matrix(num_classes) for score in scores]
    values = []
    for times in draws(len(scores)):
        pooled = sum(count * matrix for count, matrix in zip(times, matrices, strict=True))
        ious = [iou for k, iou in enumerate(iou_scores(pooled)["iou"]) if k in classes and iou is not None]
        if ious:
            values.append(sum(ious) / len(ious))
    return tuple(np.percentile(values, [2.5, 97.5])) if values else None


@pytest.mark.parametrize(("images", "num_classes", "boundary"), [(1, 3, None), (7, 5, None), (12, 4, "trimap")])
@pytest.mark.parametrize("classes", [None, [0, 2]])
def test_equals_the_definition(images, num_classes, boundary, classes):
    scores = scored(images, num_classes, seed=images + 3, boundary=boundary)
    found = miou_interval(scores, num_classes, classes)
    expected = slow_interval(scores, num_classes, classes or list(range(num_classes)))
    assert (found["low"], found["high"]) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_sums_are_those_of_the_matrices(images, num_classes, seed):
    scores = scored(images, num_classes, seed)
    for sums, score in zip(class_sums(scores, num_classes), scores, strict=True):
        matrix = score.matrix(num_classes)
        assert np.array_equal(sums, [np.diag(matrix), matrix.sum(1), matrix.sum(0)])


def test_draws_are_as_large_as_the_split_and_the_same_each_time():
    drawn = draws(30)
    assert drawn.shape == (DRAWS, 30)
    assert (drawn.sum(1) == 30).all()
    assert np.array_equal(drawn, draws(30))
    # Each picture is drawn once a draw on average, with the variance 1 - 1 / n of a binomial.
    assert drawn.mean() == 1
    assert drawn.var() == pytest.approx(1 - 1 / 30, rel=0.05)


def test_nothing_scored_has_no_interval():
    truth = np.full((2, 2), 255, np.uint8)
    nothing = score_image(0, truth, np.zeros((2, 2), np.uint8), 3, 255)
    assert miou_interval([nothing], 3) is None
    half = score_image(1, np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 3, 255)
    # A draw of the empty picture alone says nothing; the other says 1.
    assert (miou_interval([nothing, half], 3)["low"], miou_interval([nothing, half], 3)["high"]) == (1, 1)
    assert miou_interval([half], 3, [2]) is None


def test_equal_pictures_leave_nothing_open():
    one = scored(1, 3, seed=2)[0]
    interval = miou_interval([one] * 8, 3)
    assert interval["low"] == pytest.approx(one.miou(3))
    assert interval["high"] == pytest.approx(one.miou(3))
    assert "1,000 draws" in interval["rule"]


def test_more_pictures_narrow_it():
    def width(images: int) -> float:
        interval = miou_interval(scored(images, 3, seed=5), 3)
        return interval["high"] - interval["low"]

    # By the square root of their number: four times where the number is sixteen times as large.
    assert 2.5 < width(20) / width(320) < 6.5
