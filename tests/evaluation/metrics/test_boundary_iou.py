import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

from seenet.core.labels import LabelSet, voc_colours
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.metrics.boundary_iou import BoundaryIou, band_width, inner_bands
from seenet.prediction.predictor import Predictor
from tests.evaluation.doubles import FirstChannel, MemorySplit, random_split
from tests.prediction.doubles import TinyNet

VOID = 255


def labels(count: int) -> LabelSet:
    return LabelSet("toy", tuple(f"c{k}" for k in range(count)), voc_colours(count))


def metric(of: LabelSet) -> BoundaryIou:
    return BoundaryIou(MemorySplit([], of))


def slow_band(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a binary mask whose square of side 2 * width + 1 reaches anything else, pixel by pixel."""
    band = np.zeros(mask.shape, bool)
    for y, x in np.argwhere(mask):
        square = [(i, j) for i in range(y - width, y + width + 1) for j in range(x - width, x + width + 1)]
        band[y, x] = not all(0 <= i < mask.shape[0] and 0 <= j < mask.shape[1] and mask[i, j] for i, j in square)
    return band


def eroded_band(mask: np.ndarray, width: int) -> np.ndarray:
    """As the paper's code has it: a 3 x 3 erosion, `width` times, zeros outside."""
    return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=width, border_value=0)


def oracle(pairs, num_classes, band=eroded_band):
    """Definitions, class by class: (intersections, unions) pooled over pairs of label and prediction."""
    intersections, unions = np.zeros(num_classes, int), np.zeros(num_classes, int)
    for truth, prediction in pairs:
        found = prediction.astype(int)
        found[truth == VOID] = VOID
        height, width = truth.shape
        d = max(1, int(0.02 * (height**2 + width**2) ** 0.5 + 0.5))
        for k in range(num_classes):
            one, other = band(truth == k, d), band(found == k, d)
            intersections[k] += (one & other).sum()
            unions[k] += (one | other).sum()
    return intersections, unions


def counted(pairs, num_classes):
    both, of_truth, of_found = sum(metric(labels(num_classes)).count(0, *pair) for pair in pairs).reshape(3, -1)
    return both, of_truth + of_found - both


def blobs(rng: np.random.Generator, shape: tuple[int, int], num_classes: int, block: int, void: float) -> np.ndarray:
    small = rng.integers(0, num_classes, (shape[0] // block + 1, shape[1] // block + 1))
    mask = np.kron(small, np.ones((block, block), int))[: shape[0], : shape[1]]
    mask[rng.random(shape) < void] = VOID
    return mask.astype(np.uint8)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 11), st.integers(1, 11), st.integers(1, 4), st.integers(1, 6), st.sampled_from([0, 0.03, 0.4, 1]), st.integers(0, 10**6)
)
def test_bands_equal_brute_force(height, width, distance, block, void, seed):
    mask = blobs(np.random.default_rng(seed), (height, width), 3, block, void)
    bands = inner_bands(mask, distance)
    for k in (0, 1, 2, VOID):
        expected = slow_band(mask == k, distance)
        assert np.array_equal(bands & (mask == k), expected)
        assert np.array_equal(expected, eroded_band(mask == k, distance))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 130), st.integers(1, 130), st.integers(1, 40), st.sampled_from([0, 0.002, 0.2]), st.integers(0, 10**6))
def test_counts_equal_the_definition(height, width, block, void, seed):
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(2):
        truth = blobs(rng, (height, width), 4, block, void)
        prediction = np.roll(blobs(rng, (height, width), 4, block, 0), rng.integers(-3, 4), axis=1)
        pairs.append((truth, np.where(rng.random(truth.shape) < 0.5, np.minimum(truth, 3), prediction).astype(np.uint8)))
    assert np.array_equal(counted(pairs, 4), oracle(pairs, 4))


def test_counts_equal_the_definition_pixel_by_pixel():
    rng = np.random.default_rng(0)
    truth = blobs(rng, (70, 60), 3, 17, 0.005)
    pairs = [(truth, np.roll(np.minimum(truth, 2), 2, axis=0))]
    assert band_width(70, 60) == 2
    assert np.array_equal(counted(pairs, 3), oracle(pairs, 3, slow_band))


@pytest.mark.parametrize(("size", "width"), [((1, 1), 1), ((45, 60), 2), ((75, 100), 3), ((360, 480), 12), ((1024, 2048), 46)])
def test_width_rounds_half_up(size, width):
    assert band_width(*size) == width


def test_classes_3_and_5_never_yield_class_2():
    """5 - 3: what comes out where the band of a multi-class map is made by subtracting its erosion."""
    truth = np.full((40, 40), 3, np.uint8)
    truth[10:30, 10:30] = 5
    prediction = np.roll(truth, 1, axis=0)
    result = metric(labels(6)).result(np.zeros((6, 6), np.int64), [metric(labels(6)).count(0, truth, prediction)])
    assert [name for name, value in result["classes"].items() if value is not None] == ["c3", "c5"]
    assert result["miou"] == pytest.approx((result["classes"]["c3"] + result["classes"]["c5"]) / 2)
    assert 0 < result["miou"] < 1


def test_what_void_hides_does_not_matter():
    rng = np.random.default_rng(1)
    truth = blobs(rng, (50, 60), 3, 13, 0.05)
    prediction = rng.integers(0, 3, truth.shape).astype(np.uint8)
    changed = np.where(truth == VOID, (prediction + 1) % 3, prediction).astype(np.uint8)
    edges = metric(labels(3))
    assert np.array_equal(edges.count(0, truth, prediction), edges.count(0, truth, changed))


def test_a_right_prediction_has_1_and_swapped_classes_swap():
    rng = np.random.default_rng(2)
    truth, prediction = blobs(rng, (30, 40), 3, 9, 0.02), blobs(rng, (30, 40), 3, 9, 0)
    edges = metric(labels(3))
    right = edges.result(np.zeros((3, 3)), [edges.count(0, truth, np.minimum(truth, 2))])
    assert right["miou"] == 1
    swap = np.array([2, 1, 0] + [VOID] * 253, np.uint8)
    one, other = (
        edges.result(np.zeros((3, 3)), [edges.count(0, *pair)]) for pair in ((truth, prediction), (swap[truth], swap[prediction]))
    )
    assert list(one["classes"].values()) == list(other["classes"].values())[::-1]


@pytest.mark.parametrize(("ignore", "dtype"), [(-1, np.int32), (65535, np.int32), (11, np.uint8)])
def test_any_ignored_id(ignore, dtype):
    rng = np.random.default_rng(3)
    truth, prediction = blobs(rng, (20, 20), 3, 6, 0.05), rng.integers(0, 3, (20, 20)).astype(np.uint8)
    other = LabelSet("toy", ("a", "b", "c"), voc_colours(3), ignore)
    moved = np.where(truth == VOID, ignore, truth.astype(np.int32)).astype(dtype)
    assert np.array_equal(metric(other).count(0, moved, prediction), metric(labels(3)).count(0, truth, prediction))


def test_pooled_over_the_set_in_an_evaluation():
    split, one = random_split(4), Predictor(TinyNet(), random_split(1).labels, device="cpu")
    plain, found = evaluate(one, split), evaluate(one, split, metrics={"boundary_iou": BoundaryIou(split)})
    assert np.array_equal(plain.matrix, found.matrix)
    intersections, unions = oracle([(mask, one.mask(image)) for image, mask in split.pairs], 3)
    result = found.result()["boundary_iou"]
    assert list(result["classes"].values()) == pytest.approx(intersections / unions)
    assert "boundary_iou" not in plain.result()


def test_all_ignored_gives_none():
    split = MemorySplit([(np.zeros((3, 3, 3), np.uint8), np.full((3, 3), VOID, np.uint8))])
    found = evaluate(Predictor(FirstChannel(3), split.labels, device="cpu"), split, metrics={"boundary_iou": BoundaryIou(split)})
    assert found.result()["boundary_iou"]["miou"] is None
