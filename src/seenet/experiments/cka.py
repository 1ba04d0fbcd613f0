"""Linear CKA between features that come in parts, and which points of a split's grids they are taken at."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SEED = 0


def draw_points(points: Sequence[int], count: int) -> list[np.ndarray]:
    """Of pictures with so many grid points each, `count` points drawn from all without replacement, seed 0: rising indices a picture.

    All of them where there are no more. It depends on the arguments alone.
    """
    ends = np.cumsum(points)
    chosen = np.random.default_rng(SEED).choice(ends[-1], min(count, ends[-1]), replace=False)
    chosen.sort()
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    return [part - start for part, start in zip(parts, ends - np.asarray(points), strict=True)]


class Moments:
    """Count, mean and centred second moments, C x C float64, of rows that come in parts, n x C (Chan, Golub, LeVeque 1983)."""

    PART = 1024
    """Rows that are taken up at once: C x C is walked through each time, however few they are."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self._scatter = torch.zeros(channels, channels, dtype=torch.float64)
        self._waiting: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Take rows n x C, of any floating type, from any device."""
        self._waiting.append(rows.detach().cpu().double())
        if sum(map(len, self._waiting)) >= self.PART:
            self._take()

    @property
    def scatter(self) -> Tensor:
        """Sum over all rows of (row - mean)' (row - mean)."""
        self._take()
        return self._scatter

    def _take(self) -> None:
        if not sum(map(len, self._waiting)):
            return
        rows, self._waiting = torch.cat(self._waiting), []
        mean, total = rows.mean(0), self.count + len(rows)
        centred, apart = rows - mean, mean - self.mean
        self._scatter.addmm_(centred.T, centred).addr_(apart, apart, alpha=self.count * len(rows) / total)
        self.mean += apart * (len(rows) / total)
        self.count = total


def linear_cka(scatter: Tensor, x: slice, y: slice) -> float:
    """||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F) of two ranges of channels (Kornblith et al., ICML 2019); NaN where one does not vary."""
    cross, own, other = (torch.linalg.matrix_norm(scatter[a, b]) for a, b in ((y, x), (x, x), (y, y)))
    return float(cross**2 / (own * other))
