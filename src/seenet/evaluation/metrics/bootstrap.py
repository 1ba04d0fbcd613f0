"""Interval of the mIoU: how far it would move with other pictures of the same kind (docs/metrics.md)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from seenet.evaluation.confusion import ImageScore

DRAWS = 1000
SEED = 0
PERCENTILES = (2.5, 97.5)
RULE = f"percentiles 2.5 and 97.5 of the pooled mIoU over {DRAWS:,} draws of as many images with replacement, seed {SEED}"

AT_ONCE = 50
"""Draws made together, so that memory stays small for splits of any size."""


def class_sums(scores: Sequence[ImageScore], num_classes: int) -> np.ndarray:
    """Return hits, rows and columns of each picture's C[t, p]: float64 images x 3 x K, exact below 2^53 pixels.

    IoU needs nothing else of a matrix, so a draw's pooled IoU comes from sums of K numbers, not of K * K.
    """
    sizes = [len(score.cells) for score in scores]
    image = np.repeat(np.arange(len(scores)), sizes)
    cells = np.concatenate([score.cells for score in scores]) if scores else np.zeros(0, np.int64)
    counts = np.concatenate([score.counts for score in scores]) if scores else np.zeros(0, np.int64)
    truth, prediction = np.divmod(cells % num_classes**2, num_classes)

    def summed(classes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        flat = np.bincount(image * num_classes + classes, weights, minlength=len(scores) * num_classes)
        return flat.reshape(len(scores), num_classes)

    hits = np.where(truth == prediction, counts, 0)
    return np.stack([summed(truth, hits), summed(truth, counts), summed(prediction, counts)], 1)


def draws(images: int) -> np.ndarray:
    """Draw with replacement, the same every time.

    Returns:
        How often each picture is in each draw: int64 DRAWS x images, each row sums to `images`.
    """
    rng = np.random.default_rng(SEED)
    rows = []
    for _ in range(0, DRAWS, AT_ONCE):
        drawn = rng.integers(0, images, (AT_ONCE, images)) + np.arange(AT_ONCE)[:, None] * images
        rows.append(np.bincount(drawn.ravel(), minlength=AT_ONCE * images).reshape(AT_ONCE, images))
    return np.concatenate(rows)


def miou_interval(scores: Sequence[ImageScore], num_classes: int, classes: Sequence[int] | None = None) -> dict[str, Any] | None:
    """Return {"low", "high", "rule"} of the mIoU (over `classes`, default all), 0..1; None where nothing is scored.

    Pictures count as independent: those of one drive resemble each other, and then the true interval is wider.
    """
    sums = class_sums(scores, num_classes)
    if not sums.any():
        return None
    pooled = (draws(len(scores)).astype(np.float64) @ sums.reshape(len(scores), -1)).reshape(DRAWS, 3, num_classes)
    hits, rows, columns = (pooled[:, part, list(classes) if classes is not None else slice(None)] for part in range(3))
    union = rows + columns - hits
    present = union > 0
    iou = np.divide(hits, union, out=np.zeros_like(hits), where=present)
    # A draw may miss every picture in which something is scored; it says nothing.
    some = present.any(1)
    if not some.any():
        return None
    low, high = np.percentile(iou[some].sum(1) / present[some].sum(1), PERCENTILES)
    return {"low": float(low), "high": float(high), "rule": RULE}
