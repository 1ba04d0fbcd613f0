"""Boundary bands of several widths, by trimap or transition distance (docs/metrics.md)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table
from scipy.ndimage import distance_transform_cdt

from seenet.evaluation.metrics import percent, table

WIDTHS = (1, 3, 5, 10, 21, 30, 40)
"""Trimap widths of the paper (Table 3), pixels."""

SIDES = [(np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])]
CORNERS = [(np.s_[1:, 1:], np.s_[:-1, :-1]), (np.s_[1:, :-1], np.s_[:-1, 1:])]
"""Pairs of pixels and neighbours that touch by a side, or by a corner."""


def trimap_distance(mask: np.ndarray, ignore: int) -> np.ndarray | None:
    """Return each pixel's Chebyshev distance to the nearest ignored pixel of an H x W label, int32.

    Ignored pixels have distance 0. None where no pixel is ignored.
    """
    ignored = mask == ignore
    return chessboard_distance(ignored) if ignored.any() else None


def transition_distance(mask: np.ndarray, ignore: int) -> np.ndarray | None:
    """Return 1 + each pixel's Chebyshev distance to the nearest edge pixel, int32.

    An edge pixel has a class and one of its 4 neighbours has another class. Ignored pixels are
    neither. None without any edge pixel.
    """
    edges = differing_neighbours(mask, SIDES, mask != ignore)
    return chessboard_distance(edges) + 1 if edges.any() else None


def differing_neighbours(
    ids: np.ndarray, shifts: Sequence[tuple[Any, Any]], valid: np.ndarray | None = None
) -> np.ndarray:
    """Mark the pixels of an H x W map whose id differs from a neighbour's; H x W bool.

    Both pixels of such a pair are marked.

    Args:
        ids: H x W.
        shifts: pairs of slices: the first selects pixels, the second the neighbour of each.
        valid: H x W bool; a pair counts only if both its pixels are valid. None: all are.
    """
    differing = np.zeros(ids.shape, bool)
    for one, other in shifts:
        differs = ids[one] != ids[other]
        if valid is not None:
            differs &= valid[one] & valid[other]
        differing[one] |= differs
        differing[other] |= differs
    return differing


def chessboard_distance(targets: np.ndarray) -> np.ndarray:
    """Return each pixel's Chebyshev distance to the nearest True pixel, H x W int32."""
    return np.asarray(distance_transform_cdt(~targets, metric="chessboard"))


DISTANCES = {"trimap": trimap_distance, "transition": transition_distance}


def band_index(distance: np.ndarray, widths: tuple[int, ...]) -> np.ndarray:
    """Return the index of the narrowest band that holds each pixel; len(widths) if none does.

    Args:
        widths: ascending.
    """
    # The table ends at the largest distance, so that a width may be any number.
    limit = min(max(widths), int(distance.max(initial=0)))
    band_of = np.searchsorted(np.array(widths), np.arange(limit + 2))
    bands: np.ndarray = np.take(band_of, np.minimum(distance, limit + 1))
    return bands


def bands_table(boundary: dict[str, Any]) -> Table:
    """Return `boundary` of a result as a table with a column per width."""
    made = table(f"{boundary['kind']} mIoU by band width in pixels", list(boundary["miou"]))
    made.add_row(*map(percent, boundary["miou"].values()))
    return made
