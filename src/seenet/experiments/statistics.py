"""Means over seeds, and differences between rows with the interval that says whether they are more than luck."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Mean of some values; their standard deviation (n - 1) and the mean's 95 % interval (Student t), None where there is but one value."""

    mean: float
    sd: float | None
    interval: tuple[float, float] | None
    count: int

    @property
    def resolved(self) -> bool | None:
        """Whether 0 lies outside the interval; None without one."""
        return None if self.interval is None else not self.interval[0] <= 0 <= self.interval[1]


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value. The interval is mean +- t(0.975; n - 1) sd / sqrt(n)."""
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return Spread(mean, None, None, 1)
    from scipy.stats import t

    sd = float(np.std(values, ddof=1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * sd / count**0.5
    return Spread(mean, sd, (mean - half, mean + half), count)


def paired_difference(values: dict[int, float], reference: dict[int, float]) -> Spread | None:
    """Spread of value - reference over the seeds that both have; None where they share none."""
    shared = sorted(values.keys() & reference.keys())
    return spread([values[seed] - reference[seed] for seed in shared]) if shared else None
