"""Intersection over union per class, its mean, and related scores (docs/metrics.md)."""

from typing import Any

import numpy as np


def iou_scores(matrix: np.ndarray) -> dict[str, Any]:
    """Return the scores of an int64 K x K confusion matrix C[t, p].

    Returns:
        Shares in 0..1, None where the denominator is 0: `miou` (mean over the classes that are not
        absent), `pixel_accuracy`, `mean_class_accuracy` (over classes with ground truth),
        `frequency_weighted_iou`; `absent`, the indices of classes whose union is 0; and lists with
        one entry per class: `iou`, `accuracy`, `dice`, `pixels`.
    """
    hits, rows, columns = np.diag(matrix).astype(np.int64), matrix.sum(1), matrix.sum(0)
    total = int(rows.sum())
    iou, accuracy = ratio(hits, rows + columns - hits), ratio(hits, rows)
    weighted = sum(
        row / total * value
        for row, value in zip(rows.tolist(), iou, strict=True)
        if value is not None and total
    )
    return {
        "miou": mean(iou),
        "pixel_accuracy": int(hits.sum()) / total if total else None,
        "mean_class_accuracy": mean(accuracy),
        "frequency_weighted_iou": weighted if total else None,
        "absent": [index for index, value in enumerate(iou) if value is None],
        "iou": iou,
        "accuracy": accuracy,
        "dice": ratio(2 * hits, rows + columns),
        "pixels": rows.tolist(),
    }


def mean_iou(matrix: np.ndarray) -> float | None:
    """Return the mean IoU over the classes that are not absent, 0..1; None if all are."""
    return mean(iou_scores(matrix)["iou"])


def mean(values: list[float | None]) -> float | None:
    """Return the mean of the values that are not None."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def ratio(above: np.ndarray, below: np.ndarray) -> list[float | None]:
    """Divide two integer arrays; None where the denominator is 0."""
    return [a / b if b else None for a, b in zip(above.tolist(), below.tolist(), strict=True)]
