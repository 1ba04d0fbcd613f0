"""Boundary IoU of each class (Cheng et al., CVPR 2021), on binary masks (docs/metrics.md)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import RenderableType
from scipy.ndimage import distance_transform_cdt

from seenet.evaluation.metrics import Metric
from seenet.evaluation.metrics.iou import mean

SHARE = 0.02
"""Of a picture's diagonal: how wide the bands are."""
RULE = (
    "bands of max(1, round half up of 0.02 * diagonal) pixels inside each class's binary mask, Chebyshev, the picture's border counted "
    "as outside; pixels ignored in the label are in no band; intersection and union pooled over the set; absent classes left out"
)


def band_width(height: int, width: int) -> int:
    """Return d = max(1, round(0.02 * diagonal)), rounded half up, pixels."""
    return max(1, math.floor(SHARE * math.hypot(height, width) + 0.5))


def inner_bands(ids: np.ndarray, width: int) -> np.ndarray:
    """Return where a pixel of an H x W map lies within Chebyshev distance `width` of another id or of the outside.

    This is every class's band in one array. A pixel is in its own class's mask alone, and erosion takes it off that mask
    where the square of side 2 * width + 1 around it meets anything else. The way to the nearest such place goes through
    pixels of the same id, the last of which touches it by a side or a corner; so a pixel is in the band where one that
    touches another id lies within width - 1.
    """
    touches = np.zeros(ids.shape, bool)
    touches[[0, -1]] = touches[:, [0, -1]] = True
    # Pairs of neighbours: below, to the right, and the two diagonals.
    for one, other in (
        (np.s_[1:, :], np.s_[:-1, :]),
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[1:, 1:], np.s_[:-1, :-1]),
        (np.s_[1:, :-1], np.s_[:-1, 1:]),
    ):
        differs = ids[one] != ids[other]
        touches[one] |= differs
        touches[other] |= differs
    if width == 1:
        return touches
    near: np.ndarray = distance_transform_cdt(~touches, metric="chessboard") < width
    return near


class BoundaryIou(Metric):
    """Count the pixels of both bands, of the label's band and of the prediction's band, K numbers each."""

    def count(self, index: int, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Return int64 3 K of one picture's H x W ids."""
        ignored = truth == self.labels.ignore
        # Ignored in one, ignored in both: no mask has these pixels, and what they hide is outside of both.
        found = np.where(ignored, truth, prediction)
        width = band_width(*truth.shape)
        of_truth, of_found = inner_bands(truth, width) & ~ignored, inner_bands(found, width) & ~ignored
        both = of_truth & of_found & (truth == found)
        return np.concatenate(
            [np.bincount(ids, minlength=self.labels.num_classes) for ids in (truth[both], truth[of_truth], found[of_found])]
        )

    def result(self, matrix: np.ndarray, counted: list[np.ndarray]) -> dict[str, Any]:
        """Return `miou` over the classes that are not absent, and `classes` by name, None where absent; 0..1."""
        both, of_truth, of_found = np.sum(counted, axis=0).reshape(3, -1)
        union = of_truth + of_found - both
        iou = [hit / total if total else None for hit, total in zip(both.tolist(), union.tolist(), strict=True)]
        return {"miou": mean(iou), "classes": dict(zip(self.labels.classes, iou, strict=True)), "rule": RULE}

    def columns(self, part: dict[str, Any]) -> dict[str, Sequence[float | None]]:
        return {"Boundary IoU": [*part["classes"].values(), part["miou"]]}

    def tables(self, name: str, part: dict[str, Any]) -> list[RenderableType]:
        return []
