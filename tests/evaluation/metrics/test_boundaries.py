import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenet.evaluation.metrics.boundaries import WIDTHS, band_index, transition_distance, trimap_distance

VOID = 255


def slow_distance(goals: np.ndarray) -> np.ndarray | None:
    """Chebyshev distance to the nearest True, pixel by pixel."""
    points = np.argwhere(goals)
    if not len(points):
        return None
    out = np.zeros(goals.shape, int)
    for y, x in np.ndindex(goals.shape):
        out[y, x] = min(max(abs(y - i), abs(x - j)) for i, j in points)
    return out


def slow_edges(mask: np.ndarray) -> np.ndarray:
    edges = np.zeros(mask.shape, bool)
    for y, x in np.ndindex(mask.shape):
        for i, j in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= i < mask.shape[0] and 0 <= j < mask.shape[1]:
                edges[y, x] |= mask[y, x] != VOID and mask[i, j] != VOID and mask[i, j] != mask[y, x]
    return edges


@st.composite
def masks(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 14)), draw(st.integers(1, 14)))
    mask = np.kron(rng.integers(0, 3, (14, 14)), np.ones((draw(st.integers(1, 7)),) * 2, int))[: shape[0], : shape[1]]
    mask[rng.random(shape) < draw(st.sampled_from([0, 0.02, 0.3, 1]))] = VOID
    return mask.astype(np.uint8)


@settings(max_examples=120, deadline=None)
@given(masks())
def test_distances_equal_brute_force(mask):
    trimap, expected = trimap_distance(mask, VOID), slow_distance(mask == VOID)
    assert (trimap is None) == (expected is None)
    if expected is not None:
        assert np.array_equal(trimap, expected)
    transition, edges = transition_distance(mask, VOID), slow_distance(slow_edges(mask))
    assert (transition is None) == (edges is None)
    if edges is not None:
        assert np.array_equal(transition, edges + 1)


def test_transition_by_hand():
    mask = np.array([[0, 0, 0, 1, VOID, 2]], np.uint8)
    assert transition_distance(mask, VOID).tolist() == [[3, 2, 1, 1, 2, 3]]


def test_void_between_classes_hides_the_edge():
    assert transition_distance(np.array([[0, VOID, 1]], np.uint8), VOID) is None


def test_diagonal_neighbours_make_no_edge_of_their_own():
    mask = np.array([[0, VOID], [VOID, 1]], np.uint8)
    assert transition_distance(mask, VOID) is None


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=30), st.sets(st.one_of(st.integers(1, 50), st.just(10**12)), min_size=1, max_size=8)
)
def test_bands_say_the_narrowest_width(distances, widths):
    widths = tuple(sorted(widths))
    bands = band_index(np.array(distances), widths)
    for distance, band in zip(distances, bands, strict=True):
        assert band == next((i for i, width in enumerate(widths) if distance <= width), len(widths))


def test_widths_are_the_papers():
    assert WIDTHS == (1, 3, 5, 10, 21, 30, 40)
    with pytest.raises(TypeError):
        WIDTHS[0] = 2


def test_the_commands_default_is_the_papers():
    import inspect

    from seenet.cli.arguments import whole_numbers
    from seenet.cli.eval import eval_

    assert tuple(whole_numbers(inspect.signature(eval_).parameters["widths"].default, "--widths")) == WIDTHS
