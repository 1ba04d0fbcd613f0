"""mIoU of the same predictions by the conventions of other tools (docs/metrics.md)."""

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
    (
        "520",
        "left out",
        "torchvision's references and Hugging Face's example, by their resizing alone",
    ),
    ("520", "NaN", "torchvision's references"),
)
"""Size at which labels and predictions are compared, IoU of an absent class, tools that do so."""


def copies(side: int, resized: int) -> np.ndarray:
    """Return how often a resize of a side of ids copies each of its pixels.

    The nearest pixel is found by pixel centres, as Pillow's NEAREST does.
    """
    # Pixel k of the resized side is floor((k + 0.5) * side / resized) of this side, in integers,
    # since a float could round to the wrong side of a whole number. The pixels that come from
    # places below i are those with (2 k + 1) * side < 2 * resized * i.
    below = -((side - 2 * resized * np.arange(side + 1)) // (2 * side))
    return np.diff(below)


def miou_with_absent(matrix: np.ndarray, absent: str | float) -> float | None:
    """Return the mIoU of C[t, p] by a convention for classes absent in truth and prediction.

    Args:
        absent: "left out", "NaN" (the mean is NaN, here None as JSON has no NaN), or the IoU that
            an absent class gets.
    """
    iou: list[float | None] = iou_scores(matrix)["iou"]
    if absent == "left out":
        return mean(iou)
    if absent == "NaN":
        return None if None in iou else mean(iou)
    return mean([float(absent) if value is None else value for value in iou])


class Conventions(Metric):
    """mIoU by each convention of `TABLE`, pooled over the split."""

    def count(self, index: int, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Return C[t, p] of one image at a shorter side of 520, sparse: int64 2 n.

        First the n indices t * K + p of the counts that are not 0, ascending, then their pixels.
        """
        classes = self.labels.num_classes
        pairs = pair_codes(truth, prediction, classes, self.labels.ignore)
        # The longer side is in proportion, rounded down. No resized image is made: that of a long,
        # narrow one would be huge.
        least = min(truth.shape)
        rows, columns = (copies(side, SHORTER_SIDE * side // least) for side in truth.shape)
        # bincount adds in float64, which holds these whole numbers exactly.
        counts = np.bincount(pairs, np.outer(rows, columns).ravel(), minlength=classes**2 + 1)
        counts = counts[:-1].astype(np.int64)
        cells = np.flatnonzero(counts)
        return np.concatenate([cells, counts[cells]])

    def result(self, matrix: np.ndarray, counted: list[np.ndarray]) -> list[dict[str, Any]]:
        """Return an entry for each row of `TABLE`."""
        resized = np.zeros(matrix.size, np.int64)
        for counts in counted:
            cells, pixels = counts.reshape(2, -1)
            np.add.at(resized, cells, pixels)
        matrices = {"own": matrix, "520": resized.reshape(matrix.shape)}
        return [
            {
                "size": size,
                "absent": absent,
                "miou": miou_with_absent(matrices[size], absent),
                "whose": whose,
            }
            for size, absent, whose in TABLE
        ]

    def tables(self, name: str, part: list[dict[str, Any]]) -> list[RenderableType]:
        headings = ("labels and predictions", "absent classes", "mIoU", "used by")
        made = table("mIoU by convention", headings, left=set(headings) - {"mIoU"})
        for row in part:
            size = "at the label's size" if row["size"] == "own" else "shorter side 520"
            absent = row["absent"]
            shown = absent if isinstance(absent, str) else f"count as {absent:g}"
            # None is NaN by that convention; by the others it means that nothing is scored.
            value = "NaN" if row["miou"] is None and absent == "NaN" else percent(row["miou"])
            made.add_row(size, shown, value, row["whose"])
        return [made]
