"""Confusion matrices: count pixels by truth and prediction, of one image and of a whole split."""

from dataclasses import dataclass

import numpy as np

from seenet.core.errors import DataError
from seenet.evaluation.metrics.boundaries import DISTANCES, band_index
from seenet.evaluation.metrics.iou import mean_iou


def confusion_matrix(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore: int, where: str = "label"
) -> np.ndarray:
    """Return the confusion matrix C[t, p] of two H x W integer arrays, int64 K x K.

    Args:
        ignore: label id that is not scored.
        where: name of the label in an error.

    Raises:
        DataError: the sizes differ, or an id is neither a class nor `ignore`.
    """
    codes = pair_codes(truth, prediction, num_classes, ignore, where)
    counts = np.bincount(codes, minlength=num_classes**2 + 1)
    return counts[:-1].reshape(num_classes, num_classes)


def pair_codes(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore: int, where: str = "label"
) -> np.ndarray:
    """Return t * K + p of each pixel, flat; K * K where the truth is ignored.

    Raises:
        DataError: as `confusion_matrix`.
    """
    if truth.shape != prediction.shape:
        raise DataError(
            f"{where}: found a prediction of shape {prediction.shape}, expected {truth.shape}"
        )
    if prediction.size and int(prediction.max()) >= num_classes:
        raise DataError(
            f"{where}: predicted id {int(prediction.max())}, expected 0 to {num_classes - 1}"
        )
    codes = truth_codes(truth, num_classes, ignore, where)
    codes += prediction.ravel()
    # Ignored pixels hold K * K plus a predicted id.
    np.minimum(codes, num_classes**2, out=codes)
    return codes


def truth_codes(
    truth: np.ndarray, num_classes: int, ignore: int, where: str = "label"
) -> np.ndarray:
    """Return t * K of each pixel, flat; K * K where the truth is ignored.

    Raises:
        DataError: an id is neither a class nor `ignore`; names up to eight ids and their pixels.
    """
    ignored = num_classes**2
    if truth.dtype == np.uint8:
        # One table look-up multiplies by K and finds ignored and unknown ids (-1).
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
        listed = [f"{i} ({n} pixels)" for i, n in zip(ids[:8], counts[:8], strict=True)]
        raise DataError(
            f"{where}: label ids {', '.join(listed)}{', ...' if len(ids) > 8 else ''} are neither "
            f"a class (0 to {num_classes - 1}) nor ignored ({ignore}); "
            "declare them in the data set's labels or correct the mask"
        )
    return codes


@dataclass(frozen=True)
class ImageScore:
    """Counts of one image; sparse, so that the counts of all images fit into memory.

    `cells` are the indices band * K * K + t * K + p of the counts that are not 0, ascending, and
    `counts` their pixels. Without boundary bands there is one band.
    """

    index: int
    """Index of the image in the split."""
    cells: np.ndarray
    counts: np.ndarray
    has_boundary: bool = True
    """False where boundary bands were requested and the label has no rim or edge."""
    loss: float = 0.0
    """Negative log-likelihood summed over the valid pixels, nats; 0 if not requested."""
    metric_counts: tuple[np.ndarray, ...] = ()
    """int64 counts of each further `Metric`."""

    def matrix(self, num_classes: int) -> np.ndarray:
        """Return the confusion matrix C[t, p] of this image, int64 K x K."""
        return total([self], num_classes)[0]

    def miou(self, num_classes: int) -> float | None:
        """Return the mean IoU of the classes in truth or prediction; None if no pixel is scored."""
        return mean_iou(self.matrix(num_classes))


def score_image(
    index: int,
    truth: np.ndarray,
    prediction: np.ndarray,
    num_classes: int,
    ignore: int,
    *,
    boundary: str | None = None,
    widths: tuple[int, ...] = (),
    where: str = "label",
) -> ImageScore:
    """Count one image, with `boundary` ("trimap" or "transition") also in bands of these widths.

    Raises:
        DataError: as `confusion_matrix`.
    """
    codes = pair_codes(truth, prediction, num_classes, ignore, where)
    codes_per_band = num_classes**2 + 1
    bands, has_boundary = 1, True
    if boundary is not None:
        bands = len(widths) + 1
        distance = DISTANCES[boundary](truth, ignore)
        has_boundary = distance is not None
        band = len(widths) if distance is None else band_index(distance, widths).ravel()
        codes = codes + band * codes_per_band
    counts = np.bincount(codes, minlength=bands * codes_per_band)
    counts = counts.reshape(bands, codes_per_band)[:, :-1].ravel()
    cells = np.flatnonzero(counts)
    return ImageScore(index, cells, counts[cells], has_boundary)


def total(
    scores: list[ImageScore], num_classes: int, widths: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Sum the counts of images.

    Args:
        widths: number of boundary bands that the images were scored with; 0 also sums images with
            bands into one matrix.

    Returns:
        C (K x K), and C within each width (widths x K x K), int64.
    """
    summed = np.zeros((widths + 1) * num_classes**2, np.int64)
    for score in scores:
        cells = score.cells if widths else score.cells % num_classes**2
        np.add.at(summed, cells, score.counts)
    bands = summed.reshape(widths + 1, num_classes, num_classes)
    return bands.sum(0), bands[:-1].cumsum(0)
