"""Bootstrap interval of the mIoU over the images of a split (docs/metrics.md)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from seenet.evaluation.confusion import ImageScore

DRAWS = 1000
SEED = 0
PERCENTILES = (2.5, 97.5)
RULE = (
    f"percentiles 2.5 and 97.5 of the pooled mIoU over {DRAWS:,} draws of as many images "
    f"with replacement, seed {SEED}"
)


def class_sums(scores: Sequence[ImageScore], num_classes: int) -> np.ndarray:
    """Return hits, row sums and column sums of each image's C[t, p], float64 images x 3 x K.

    The IoU needs only these, so the pooled IoU of a draw comes from sums of K numbers instead of
    K * K. They are exact below 2^53 pixels.
    """
    sums = np.zeros((len(scores), 3, num_classes))
    for place, score in enumerate(scores):
        matrix = score.matrix(num_classes)
        sums[place] = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    return sums


def draws(images: int) -> np.ndarray:
    """Draw images with replacement, the same at every call.

    Returns:
        How often each draw holds each image: int64 DRAWS x images; each row sums to `images`.
    """
    drawn = np.random.default_rng(SEED).integers(0, images, (DRAWS, images))
    return np.stack([np.bincount(places, minlength=images) for places in drawn])


def miou_interval(
    scores: Sequence[ImageScore], num_classes: int, classes: Sequence[int] | None = None
) -> dict[str, Any] | None:
    """Return {"low", "high", "rule"} of the mIoU over `classes` (default: all), in 0..1.

    Images are taken as independent. Images of one drive are similar, so the true interval is wider.
    None where no pixel of these classes is scored.
    """
    sums = class_sums(scores, num_classes)
    pooled = draws(len(scores)).astype(np.float64) @ sums.reshape(len(scores), -1)
    chosen = slice(None) if classes is None else list(classes)
    hits, rows, columns = pooled.reshape(DRAWS, 3, num_classes)[:, :, chosen].transpose(1, 0, 2)
    union = rows + columns - hits
    present = union > 0
    iou = np.divide(hits, union, out=np.zeros_like(hits), where=present)
    # A draw that holds no image in which something is scored has no mIoU.
    valid = present.any(1)
    if not valid.any():
        return None
    low, high = np.percentile(iou[valid].sum(1) / present[valid].sum(1), PERCENTILES)
    return {"low": float(low), "high": float(high), "rule": RULE}
