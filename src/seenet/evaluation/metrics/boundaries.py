"""Distances to outlines, for mIoU in bands of several widths: trimap and transition (docs/metrics.md)."""

from typing import Any

import numpy as np
from rich.table import Table
from scipy.ndimage import distance_transform_cdt

from seenet.evaluation.metrics import percent, table

WIDTHS = (1, 3, 5, 10, 21, 30, 40)
"""The paper's widths (its trimap figure), pixels."""


def trimap_distance(mask: np.ndarray, ignore: int) -> np.ndarray | None:
    """Return the Chebyshev distance of each pixel of an H x W label to the nearest ignored one (0 on these), int32.

    None where none is ignored.
    """
    ignored = mask == ignore
    return _chessboard(ignored) if ignored.any() else None


def transition_distance(mask: np.ndarray, ignore: int) -> np.ndarray | None:
    """Return 1 + Chebyshev distance of each pixel to the nearest edge pixel, int32; None where there is no edge.

    An edge pixel has a class, and among its 4 neighbours another class; ignored pixels are neither.
    """
    edges = np.zeros(mask.shape, bool)
    valid = mask != ignore
    for one, other in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (mask[one] != mask[other]) & valid[one] & valid[other]
        edges[one] |= differs
        edges[other] |= differs
    return _chessboard(edges) + 1 if edges.any() else None


def _chessboard(goals: np.ndarray) -> np.ndarray:
    distance: np.ndarray = distance_transform_cdt(~goals, metric="chessboard")
    return distance


DISTANCES = {"trimap": trimap_distance, "transition": transition_distance}


def band_index(distance: np.ndarray, widths: tuple[int, ...]) -> np.ndarray:
    """Return the index of the narrowest of `widths` (ascending) that each pixel lies within, len(widths) where it is in none."""
    # No width is too large: the table ends where the distances do.
    limit = min(max(widths), int(distance.max(initial=0)))
    table = np.searchsorted(np.array(widths), np.arange(limit + 2))
    index: np.ndarray = table[np.minimum(distance, limit + 1)]
    return index


def bands_table(boundary: dict[str, Any]) -> Table:
    """Return a result's `boundary` as a table, a column for each width."""
    made = table(f"{boundary['kind']} mIoU within so many pixels", list(boundary["miou"]))
    made.add_row(*map(percent, boundary["miou"].values()))
    return made
