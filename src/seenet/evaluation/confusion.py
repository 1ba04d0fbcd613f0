"""Confusion matrix and the numbers made from it (docs/metrics.md)."""

from typing import Any

import numpy as np

from seenet.core.errors import DataError


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore: int, where: str = "label") -> np.ndarray:
    """C[t, p], int64 K x K, of two H x W integer arrays; pixels whose truth is `ignore` are left out.

    Raises DataError (naming `where`, ids and pixel counts) where a label is neither a class nor ignored, or sizes
    differ.
    """
    return np.bincount(pair_codes(truth, prediction, num_classes, ignore, where), minlength=num_classes**2 + 1)[:-1].reshape(
        num_classes, num_classes
    )


def pair_codes(truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore: int, where: str = "label") -> np.ndarray:
    """t * K + p of each pixel, flat; K * K where the truth is ignored. Errors as `confusion_matrix`."""
    if truth.shape != prediction.shape:
        raise DataError(f"{where}: the label is {_size(truth)}, the prediction {_size(prediction)}; expected the same size")
    if prediction.size and int(prediction.max()) >= num_classes:
        raise DataError(f"{where}: predicted id {int(prediction.max())}, expected 0 to {num_classes - 1}")
    codes = truth_codes(truth, num_classes, ignore, where)
    codes += prediction.ravel()
    # Where ignored, the predicted id was added too.
    np.minimum(codes, num_classes**2, out=codes)
    return codes


def truth_codes(truth: np.ndarray, num_classes: int, ignore: int, where: str = "label") -> np.ndarray:
    """t * K of each pixel, flat; K * K where the truth is ignored. DataError where a label is neither."""
    ignored = num_classes**2
    if truth.dtype == np.uint8:
        # One table look-up tells class, ignored and neither apart, and multiplies by K on the way.
        table = np.full(256, -1, np.int32)
        table[: min(num_classes, 256)] = np.arange(min(num_classes, 256)) * num_classes
        if 0 <= ignore < 256:
            table[ignore] = ignored
        codes = np.take(table, truth.ravel())
    else:
        ids = truth.ravel().astype(np.int64)
        codes = np.where((ids >= 0) & (ids < num_classes), ids * num_classes, -1)
        codes[ids == ignore] = ignored
    if codes.size and codes.min() < 0:
        ids, counts = np.unique(truth.ravel()[codes < 0], return_counts=True)
        found = ", ".join(f"{i} ({n} pixels)" for i, n in zip(ids[:8], counts[:8], strict=True)) + (", ..." if len(ids) > 8 else "")
        raise DataError(
            f"{where}: label ids {found} are neither a class (0 to {num_classes - 1}) nor ignored ({ignore}); "
            "declare them in the data set's labels or mend the mask"
        )
    return codes


def _size(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape))


def metrics(matrix: np.ndarray) -> dict[str, Any]:
    """Numbers of an int64 K x K matrix, all in 0..1, None where nothing is there to divide by.

    `miou` over the classes that are not absent; `pixel_accuracy`; `mean_class_accuracy` over classes with ground truth;
    `frequency_weighted_iou`; `absent` (class indices whose union is 0); and one entry a class in `iou`, `accuracy`,
    `dice`, `pixels`.
    """
    hits, rows, columns = np.diag(matrix).astype(np.int64), matrix.sum(1), matrix.sum(0)
    total = int(rows.sum())
    iou, accuracy, dice = _ratio(hits, rows + columns - hits), _ratio(hits, rows), _ratio(2 * hits, rows + columns)
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


def _ratio(above: np.ndarray, below: np.ndarray) -> list[float | None]:
    return [a / b if b else None for a, b in zip(above.tolist(), below.tolist(), strict=True)]


def mean(values: list[float | None]) -> float | None:
    """Mean of those that are there."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None
