import numpy as np
import pytest

from seenet.evaluation.confusion import ImageScore, score_image
from seenet.evaluation.metrics.bootstrap import DRAWS, draws, miou_interval
from seenet.evaluation.metrics.iou import iou_scores


def random_scores(
    images: int, num_classes: int, seed: int, *, boundary: str | None = None
) -> list[ImageScore]:
    """Score noise with rare classes, so that draws differ in the classes they contain."""
    rng = np.random.default_rng(seed)
    scores = []
    for index in range(images):
        truth = rng.integers(0, rng.integers(1, num_classes + 1), (6, 7)).astype(np.uint8)
        truth[rng.random(truth.shape) < rng.choice([0.1, 1], p=[0.8, 0.2])] = 255
        noise = rng.integers(0, num_classes, truth.shape)
        prediction = np.where((truth < 255) & (rng.random(truth.shape) < 0.6), truth, noise)
        bands = {"boundary": boundary, "widths": (1, 2)} if boundary else {}
        scores.append(score_image(index, truth, prediction, num_classes, 255, **bands))
    return scores


def slow_interval(
    scores: list[ImageScore], num_classes: int, classes: list[int]
) -> tuple[float, float]:
    """Compute the interval by its definition, draw by draw, from whole matrices."""
    matrices = [score.matrix(num_classes) for score in scores]
    values = []
    for times in draws(len(scores)):
        pooled = sum(count * matrix for count, matrix in zip(times, matrices, strict=True))
        ious = [iou_scores(pooled)["iou"][k] for k in classes]
        if present := [iou for iou in ious if iou is not None]:
            values.append(sum(present) / len(present))
    return tuple(np.percentile(values, [2.5, 97.5]))


@pytest.mark.parametrize(
    ("images", "num_classes", "boundary"), [(1, 3, None), (7, 5, None), (12, 4, "trimap")]
)
@pytest.mark.parametrize("classes", [None, [0, 2]])
def test_interval_equals_the_definition(images, num_classes, boundary, classes):
    scores = random_scores(images, num_classes, seed=images + 3, boundary=boundary)
    found = miou_interval(scores, num_classes, classes)
    expected = slow_interval(scores, num_classes, classes or list(range(num_classes)))
    assert (found["low"], found["high"]) == pytest.approx(expected, abs=1e-12)


def test_draws_are_of_the_splits_size_and_reproducible():
    drawn = draws(30)
    assert drawn.shape == (DRAWS, 30)
    assert (drawn.sum(1) == 30).all()
    assert np.array_equal(drawn, draws(30))
    # A draw contains an image once on average, with the variance 1 - 1 / n of a binomial.
    assert drawn.var() == pytest.approx(1 - 1 / 30, rel=0.05)


def test_images_without_a_scored_pixel():
    zeros = np.zeros((2, 2), np.uint8)
    empty = score_image(0, np.full((2, 2), 255, np.uint8), zeros, 3, 255)
    right = score_image(1, zeros, zeros, 3, 255)
    assert miou_interval([empty], 3) is None
    assert miou_interval([right], 3, [2]) is None
    # A draw of the empty image alone has no mIoU; the other draws have 1.
    interval = miou_interval([empty, right], 3)
    assert (interval["low"], interval["high"]) == (1, 1)
