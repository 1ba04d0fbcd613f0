"""Boundary IoU of each class on its binary mask (Cheng et al., CVPR 2021; docs/metrics.md)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import RenderableType

from seenet.evaluation.metrics import Metric
from seenet.evaluation.metrics.boundaries import (
    CORNERS,
    SIDES,
    chessboard_distance,
    differing_neighbours,
)
from seenet.evaluation.metrics.iou import mean, ratio

SHARE = 0.02
"""Width of the bands as a share of the image's diagonal."""
RULE = (
    "bands of max(1, round half up of 0.02 * diagonal) pixels inside each class's binary mask, "
    "Chebyshev, the picture's border counted as outside; pixels ignored in the label are in no "
    "band; intersection and union pooled over the set; absent classes left out"
)


def band_width(height: int, width: int) -> int:
    """Return d = max(1, round(0.02 * diagonal)), rounded half up, pixels."""
    return max(1, math.floor(SHARE * math.hypot(height, width) + 0.5))


def inner_bands(ids: np.ndarray, width: int) -> np.ndarray:
    """Return where a pixel of an H x W map is within Chebyshev distance `width` of another id.

    The outside of the image counts as another id. One array holds the bands of all classes: a pixel
    belongs to the mask of its own class only, and erosion removes it from that mask if the square
    of side 2 * width + 1 around it holds anything else. The shortest path to another id runs
    through pixels of the same id, and the last of them touches it by a side or a corner. So a pixel
    is in the band if such a touching pixel is within distance width - 1.
    """
    touches = differing_neighbours(ids, [*SIDES, *CORNERS])
    touches[[0, -1]] = touches[:, [0, -1]] = True
    return touches if width == 1 else chessboard_distance(touches) < width


class BoundaryIou(Metric):
    """Boundary IoU: intersection over union of the bands of label and prediction."""

    def count(self, index: int, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Return the pixels of both bands, the label's band and the prediction's band, int64 3 K.

        Args:
            index: not used.
            truth, prediction: H x W ids.
        """
        ignored = truth == self.labels.ignore
        # Pixels ignored in the label are outside all masks of the prediction too.
        predicted = np.where(ignored, truth, prediction)
        width = band_width(*truth.shape)
        truth_band = inner_bands(truth, width) & ~ignored
        predicted_band = inner_bands(predicted, width) & ~ignored
        both = truth_band & predicted_band & (truth == predicted)
        bands = (truth[both], truth[truth_band], predicted[predicted_band])
        return np.concatenate(
            [np.bincount(ids, minlength=self.labels.num_classes) for ids in bands]
        )

    def result(self, matrix: np.ndarray, counted: list[np.ndarray]) -> dict[str, Any]:
        """Return `miou` and, by name, the value of each class, in 0..1; None for absent classes."""
        both, truth_band, predicted_band = np.sum(counted, axis=0).reshape(3, -1)
        iou = ratio(both, truth_band + predicted_band - both)
        return {
            "miou": mean(iou),
            "classes": dict(zip(self.labels.classes, iou, strict=True)),
            "rule": RULE,
        }

    def columns(self, part: dict[str, Any]) -> dict[str, Sequence[float | None]]:
        return {"Boundary IoU": [*part["classes"].values(), part["miou"]]}

    def tables(self, name: str, part: dict[str, Any]) -> list[RenderableType]:
        return []
