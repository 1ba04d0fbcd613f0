import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

from seenet.core.labels import LabelSet, voc_colours
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.metrics.boundary_iou import BoundaryIou, band_width
from tests.evaluation.doubles import MemorySplit, random_split, tiny

VOID = 255


def metric(num_classes: int, ignore: int = VOID) -> BoundaryIou:
    names = tuple(f"c{k}" for k in range(num_classes))
    return BoundaryIou(MemorySplit([], LabelSet("toy", names, voc_colours(num_classes), ignore)))


def eroded_band(mask: np.ndarray, width: int) -> np.ndarray:
    """Return the band as the paper's code does: a 3 x 3 erosion, `width` times, zeros outside."""
    return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=width, border_value=0)


def slow_counts(pairs, num_classes):
    """Return (intersections, unions) of each class by definition, pooled over the pairs."""
    intersections, unions = np.zeros(num_classes, int), np.zeros(num_classes, int)
    for truth, prediction in pairs:
        predicted = np.where(truth == VOID, VOID, prediction)
        width = max(1, int(0.02 * np.hypot(*truth.shape) + 0.5))
        for k in range(num_classes):
            one, other = eroded_band(truth == k, width), eroded_band(predicted == k, width)
            intersections[k] += (one & other).sum()
            unions[k] += (one | other).sum()
    return intersections, unions


def blobs(
    rng: np.random.Generator, shape: tuple[int, int], num_classes: int, block: int, void: float
) -> np.ndarray:
    small = rng.integers(0, num_classes, (shape[0] // block + 1, shape[1] // block + 1))
    mask = np.kron(small, np.ones((block, block), int))[: shape[0], : shape[1]]
    mask[rng.random(shape) < void] = VOID
    return mask.astype(np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 130), st.integers(1, 130)),
    st.integers(1, 40),
    st.sampled_from([0, 0.002, 0.2]),
    st.integers(0, 10**6),
)
def test_counts_equal_the_definition(shape, block, void, seed):
    rng = np.random.default_rng(seed)
    truth = blobs(rng, shape, 4, block, void)
    shifted = np.roll(blobs(rng, shape, 4, block, 0), rng.integers(-3, 4), axis=1)
    prediction = np.where(rng.random(shape) < 0.5, np.minimum(truth, 3), shifted)
    both, truth_band, predicted_band = metric(4).count(0, truth, prediction).reshape(3, -1)
    expected = slow_counts([(truth, prediction)], 4)
    assert np.array_equal([both, truth_band + predicted_band - both], expected)


@pytest.mark.parametrize(
    ("size", "width"),
    [((1, 1), 1), ((45, 60), 2), ((75, 100), 3), ((360, 480), 12), ((1024, 2048), 46)],
)
def test_width_rounds_half_up(size, width):
    assert band_width(*size) == width


@pytest.mark.parametrize(("ignore", "dtype"), [(-1, np.int32), (65535, np.int32), (11, np.uint8)])
def test_any_id_can_be_ignored(ignore, dtype):
    rng = np.random.default_rng(3)
    truth, prediction = blobs(rng, (20, 20), 3, 6, 0.05), blobs(rng, (20, 20), 3, 1, 0)
    moved = np.where(truth == VOID, ignore, truth.astype(np.int32)).astype(dtype)
    counts = metric(3, ignore).count(0, moved, prediction)
    assert np.array_equal(counts, metric(3).count(0, truth, prediction))


def test_an_evaluation_pools_over_the_split():
    split, predictor = random_split(4), tiny()
    result = evaluate(predictor, split, metrics={"edges": BoundaryIou(split)}).result()["edges"]
    pairs = [(mask, predictor.mask(image)) for image, mask in split.pairs]
    intersections, unions = slow_counts(pairs, 3)
    assert list(result["classes"].values()) == pytest.approx(intersections / unions)
