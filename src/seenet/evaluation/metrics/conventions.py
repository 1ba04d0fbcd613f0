"""Score the same predictions as other tools would (docs/metrics.md)."""

from typing import Any

import numpy as np
from rich.console import RenderableType

from seenet.evaluation.confusion import pair_codes
from seenet.evaluation.metrics import Metric, percent, table
from seenet.evaluation.metrics.iou import iou_scores, mean

SHORTER_SIDE = 520

TABLE: tuple[tuple[str, str | float, str], ...] = (
    ("own", "left out", "seenet, mmsegmentation"),
    ("own", 0.0, "PyTorch-Encoding"),
    ("own", 1.0, "segmentation_models.pytorch, PaddleSeg"),
    ("own", "NaN", "torchvision's references, without their resizing"),
    ("520", "left out", "torchvision's references and Hugging Face's example, by their resizing alone"),
    ("520", "NaN", "torchvision's references"),
)
"""Size at which labels and predictions are compared; what the IoU of an absent class counts as; whose convention it is."""


def copies(height: int, width: int, shorter: int = SHORTER_SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each row, and each column, of H x W ids is there once the shorter side has `shorter` pixels.

    The other side is in proportion, rounded down; nearest by pixel centres, as Pillow's NEAREST and
    torchvision's sizes. A long, narrow picture needs no memory for it.
    """
    least = min(height, width)
    return _copies(height, shorter * height // least), _copies(width, shorter * width // least)


def _copies(side: int, resized: int) -> np.ndarray:
    # Pixel k of the resized side is floor((k + 0.5) * side / resized) of this one; in integers, since a float could fall on the wrong
    # side of a whole number. Below place i are those with (2 k + 1) * side < 2 * resized * i.
    below = -((side - 2 * resized * np.arange(side + 1)) // (2 * side))
    return np.diff(below)


def miou_with_absent(matrix: np.ndarray, absent: str | float) -> float | None:
    """Return the mIoU of C[t, p] by a convention for absent classes, those with no pixel in truth and prediction.

    Args:
        absent: "left out", "NaN" (they make the mean NaN: None, as JSON has none), or what they count as.
    """
    iou: list[float | None] = iou_scores(matrix)["iou"]
    if absent == "left out":
        return mean(iou)
    if absent == "NaN":
        return None if None in iou else mean(iou)
    return mean([float(absent) if value is None else value for value in iou])


class Conventions(Metric):
    """Count each picture's C[t, p] at a shorter side of 520: its cells and then their counts."""

    def count(self, index: int, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Return int64 2 n: the n cells t * K + p that are not 0, ascending, and their pixels."""
        classes = self.labels.num_classes
        pairs = pair_codes(truth, prediction, classes, self.labels.ignore)
        rows, columns = copies(*truth.shape)
        # float64, in which these whole numbers are exact.
        matrix = np.bincount(pairs, np.outer(rows, columns).ravel(), minlength=classes**2 + 1)[:-1].astype(np.int64)
        cells = np.flatnonzero(matrix)
        return np.concatenate([cells, matrix[cells]])

    def result(self, matrix: np.ndarray, counted: list[np.ndarray]) -> list[dict[str, Any]]:
        """Return a row for each of `TABLE`; all are pooled over the set."""
        resized = np.zeros(matrix.size, np.int64)
        for counts in counted:
            cells, pixels = counts.reshape(2, -1)
            np.add.at(resized, cells, pixels)
        matrices = {"own": matrix, "520": resized.reshape(matrix.shape)}
        return [
            {"size": size, "absent": absent, "miou": miou_with_absent(matrices[size], absent), "whose": whose}
            for size, absent, whose in TABLE
        ]

    def tables(self, name: str, part: list[dict[str, Any]]) -> list[RenderableType]:
        left = ("labels and predictions", "absent classes", "whose")
        made = table("mIoU by convention", ("labels and predictions", "absent classes", "mIoU", "whose"), left)
        for row in part:
            size = "at the label's size" if row["size"] == "own" else "shorter side 520"
            absent = row["absent"] if isinstance(row["absent"], str) else f"count as {row['absent']:g}"
            # A mean that is not there is NaN in a tool that has it so; elsewhere nothing was scored.
            value = "NaN" if row["miou"] is None and absent == "NaN" else percent(row["miou"])
            made.add_row(size, absent, value, row["whose"])
        return [made]
