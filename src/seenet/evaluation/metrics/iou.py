"""Intersection over union of each class, its mean, and the numbers told beside it (docs/metrics.md)."""

from typing import Any

import numpy as np


def iou_scores(matrix: np.ndarray) -> dict[str, Any]:
    """Return the numbers of an int64 K x K confusion matrix C[t, p].

    Returns:
        All in 0..1, None where nothing is there to divide by: `miou` over the classes that are not
        absent; `pixel_accuracy`; `mean_class_accuracy` over classes with ground truth;
        `frequency_weighted_iou`; `absent` (class indices whose union is 0); and one entry a class in
        `iou`, `accuracy`, `dice`, `pixels`.
    """
    hits, rows, columns = np.diag(matrix).astype(np.int64), matrix.sum(1), matrix.sum(0)
    total = int(rows.sum())
    iou = _ratio(hits, rows + columns - hits)
    accuracy, dice = _ratio(hits, rows), _ratio(2 * hits, rows + columns)
    weighted = [row / total * value for row, value in zip(rows.tolist(), iou, strict=True) if value is not None and total]
    return {
        "miou": mean(iou),
        "pixel_accuracy": int(hits.sum()) / total if total else None,
        "mean_class_accuracy": mean(accuracy),
        "frequency_weighted_iou": sum(weighted) if total else None,
        "absent": [index for index, value in enumerate(iou) if value is None],
        "iou": iou,
        "accuracy": accuracy,
        "dice": dice,
        "pixels": rows.tolist(),
    }


def mean(values: list[float | None]) -> float | None:
    """Return the mean of those that are not None."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _ratio(above: np.ndarray, below: np.ndarray) -> list[float | None]:
    return [a / b if b else None for a, b in zip(above.tolist(), below.tolist(), strict=True)]
