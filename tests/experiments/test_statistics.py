"""Intervals against scipy's own paired test."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from seenet.experiments.statistics import paired_difference, spread


def test_paired_interval_is_the_paired_t_tests() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(0.7, 0.02, 5), generator.normal(0.68, 0.02, 5)
    found = paired_difference(dict(enumerate(ours)), dict(enumerate(theirs)))
    expected = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found is not None and found.interval == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx((ours - theirs).mean())
    assert found.sd == pytest.approx((ours - theirs).std(ddof=1))
    assert found.resolved == (not expected.low <= 0 <= expected.high)


def test_only_seeds_that_both_have_are_compared() -> None:
    found = paired_difference({0: 0.5, 1: 0.6, 7: 0.9}, {1: 0.5, 0: 0.45, 3: 0.1})
    assert found is not None and found.count == 2
    assert found.mean == pytest.approx(0.075)
    assert paired_difference({0: 0.5}, {1: 0.5}) is None


def test_one_value_has_no_interval() -> None:
    found = spread([0.4])
    assert (found.mean, found.sd, found.interval, found.resolved) == (0.4, None, None, None)
    assert spread([0.4, 0.4]).interval == (0.4, 0.4)
