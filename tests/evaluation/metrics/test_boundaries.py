import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenet.cli.arguments import numbers
from seenet.cli.eval import eval_
from seenet.evaluation.metrics.boundaries import (
    WIDTHS,
    transition_distance,
    trimap_distance,
)

VOID = 255


def slow_distance(targets: np.ndarray) -> np.ndarray | None:
    """Return the Chebyshev distance to the nearest True, pixel by pixel."""
    points = np.argwhere(targets)
    if not len(points):
        return None
    out = np.zeros(targets.shape, int)
    for y, x in np.ndindex(targets.shape):
        out[y, x] = np.abs(points - (y, x)).max(1).min()
    return out


def slow_edges(mask: np.ndarray) -> np.ndarray:
    edges = np.zeros(mask.shape, bool)
    for y, x in np.ndindex(mask.shape):
        for i, j in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= i < mask.shape[0] and 0 <= j < mask.shape[1]:
                ids = {int(mask[y, x]), int(mask[i, j])}
                edges[y, x] |= len(ids) == 2 and VOID not in ids
    return edges


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 14),
    st.integers(1, 14),
    st.integers(1, 7),
    st.sampled_from([0, 0.02, 0.3, 1]),
    st.integers(0, 2**32 - 1),
)
def test_distances_equal_brute_force(height, width, block, void, seed):
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.integers(0, 3, (14, 14)), np.ones((block, block), int))[:height, :width]
    mask = np.where(rng.random(mask.shape) < void, VOID, mask).astype(np.uint8)
    for found, targets, offset in (
        (trimap_distance(mask, VOID), mask == VOID, 0),
        (transition_distance(mask, VOID), slow_edges(mask), 1),
    ):
        expected = slow_distance(targets)
        assert found is None if expected is None else np.array_equal(found, expected + offset)


@pytest.mark.parametrize(
    ("mask", "distance"),
    [
        ([[0, 0, 0, 1, VOID, 2]], [[3, 2, 1, 1, 2, 3]]),
        # Void between classes hides the edge.
        ([[0, VOID, 1]], None),
        # Diagonal neighbours make no edge.
        ([[0, VOID], [VOID, 1]], None),
    ],
)
def test_transition_by_hand(mask, distance):
    found = transition_distance(np.array(mask, np.uint8), VOID)
    assert (None if found is None else found.tolist()) == distance


def test_default_widths_are_the_papers():
    default = inspect.signature(eval_).parameters["widths"].default
    assert (1, 3, 5, 10, 21, 30, 40) == WIDTHS == tuple(numbers(default, "--widths", int))
