"""Linear CKA against its other form, over Gram matrices of points (Kornblith et al. 2019, Eq. 3 and 4), and its invariances."""

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from seenet.experiments.cka import Moments, draw_points, linear_cka

RNG = np.random.default_rng(1)


def features(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Two that share some of what they say, far from 0 as after ReLU."""
    shared = RNG.normal(size=(count, 5))
    x = shared @ RNG.normal(size=(5, 12)) + RNG.normal(size=(count, 12)) + 100
    y = shared @ RNG.normal(size=(5, 7)) + RNG.normal(size=(count, 7)) - 40
    return x, y


def cka(x: np.ndarray, y: np.ndarray, parts: int = 1) -> float:
    moments = Moments(x.shape[1] + y.shape[1])
    for part in np.array_split(np.hstack([x, y]), parts):
        moments.add(torch.from_numpy(part))
    return linear_cka(moments.scatter, slice(0, x.shape[1]), slice(x.shape[1], None))


def by_hsic(x: np.ndarray, y: np.ndarray) -> float:
    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        h = np.eye(n) - np.ones((n, n)) / n
        return float(np.trace(k @ h @ m @ h) / (n - 1) ** 2)

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / (hsic(k, k) * hsic(m, m)) ** 0.5


@pytest.mark.parametrize("parts", [1, 7, 300])
def test_equals_the_form_over_gram_matrices(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Moments, "PART", 40)
    x, y = features()
    found = cka(x, y, parts)
    assert 0.05 < found < 0.95
    assert found == pytest.approx(by_hsic(x, y), rel=1e-10)


def test_invariances() -> None:
    x, y = features()
    found = cka(x, y)
    assert cka(x, x) == pytest.approx(1, abs=1e-12)
    assert cka(y, x) == pytest.approx(found, rel=1e-12)
    assert cka(x @ ortho_group.rvs(12, random_state=0), y) == pytest.approx(found, rel=1e-10)
    assert cka(-3.5 * x + RNG.normal(size=12), 1e-3 * y) == pytest.approx(found, rel=1e-10)
    # It is not invariant to any invertible map: that is the point of it.
    assert abs(cka(x * np.linspace(0.01, 3, 12), y) - found) > 1e-3


def test_a_part_of_the_channels() -> None:
    x, y = features()
    moments = Moments(19)
    moments.add(torch.from_numpy(np.hstack([x, y])))
    assert linear_cka(moments.scatter, slice(8, 12), slice(12, 19)) == pytest.approx(by_hsic(x[:, 8:], y), rel=1e-10)


def test_float32_rows_are_summed_in_float64() -> None:
    """20,000 rows with a mean of 1,000 deviations: float32 sums would lose the features."""
    x = (RNG.normal(size=(20_000, 3)) + 1000).astype(np.float32)
    moments = Moments(3)
    for part in np.array_split(x, 11):
        moments.add(torch.from_numpy(part))
    np.testing.assert_allclose(moments.scatter.numpy() / (len(x) - 1), np.cov(x.T.astype(np.float64)), rtol=1e-9, atol=1e-9)


def test_without_variation_there_is_no_number() -> None:
    x, y = features()
    assert np.isnan(cka(np.ones_like(x), y))


def test_draws_are_points_of_the_split_without_repeats() -> None:
    points = [30, 1, 500, 0, 69]
    drawn = draw_points(points, 100)
    assert sum(map(len, drawn)) == 100
    for part, count in zip(drawn, points, strict=True):
        assert len(np.unique(part)) == len(part) and np.all(np.diff(part) > 0)
        assert len(part) == 0 or 0 <= part[0] <= part[-1] < count
    assert all(np.array_equal(a, b) for a, b in zip(drawn, draw_points(points, 100), strict=True))
    # Each point of the split is as likely as any other: pictures get their share.
    shares = np.array([len(part) for part in draw_points([1000, 3000], 2000)])
    assert abs(shares[0] - 500) < 80


def test_all_points_where_there_are_no_more() -> None:
    assert [part.tolist() for part in draw_points([2, 3], 20_000)] == [[0, 1], [0, 1, 2]]
