"""Count pixels by truth and prediction: one picture at a time, then all of a split (docs/metrics.md)."""

from dataclasses import dataclass

import numpy as np

from seenet.core.errors import DataError
from seenet.evaluation.metrics.boundaries import DISTANCES, band_index
from seenet.evaluation.metrics.iou import iou_scores


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore: int, where: str = "label") -> np.ndarray:
    """Count C[t, p] of two H x W integer arrays, int64 K x K; leave out pixels whose truth is `ignore`.

    Raises:
        DataError: a label is neither a class nor ignored (naming `where`, ids and pixel counts), or
            sizes differ.
    """
    return np.bincount(pair_codes(truth, prediction, num_classes, ignore, where), minlength=num_classes**2 + 1)[:-1].reshape(
        num_classes, num_classes
    )


def pair_codes(truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore: int, where: str = "label") -> np.ndarray:
    """Return t * K + p of each pixel, flat; K * K where the truth is ignored. Errors as `confusion_matrix`."""
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
    """Return t * K of each pixel, flat; K * K where the truth is ignored. DataError where a label is neither."""
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


@dataclass(frozen=True)
class ImageScore:
    """Counts of one picture, by truth, prediction and band, without the zeros: small enough to keep for all.

    `cells` are band * K * K + t * K + p, ascending (one band where no boundary was asked for), `counts` their pixels.
    """

    index: int
    """Place in the split."""
    cells: np.ndarray
    counts: np.ndarray
    outlined: bool = True
    """Whether it has any rim or edge."""
    loss: float = 0.0
    """Sum of the negative log-likelihood over its valid pixels, nats; 0 where the loss was not asked for."""
    measured: tuple[np.ndarray, ...] = ()
    """What each further `Metric` counted, int64."""

    def matrix(self, num_classes: int) -> np.ndarray:
        """Return C[t, p] of this picture, int64 K x K."""
        return total([self], num_classes)[0]

    def miou(self, num_classes: int) -> float | None:
        """Return the mean IoU over the classes in its truth or prediction; None where nothing is scored."""
        value: float | None = iou_scores(self.matrix(num_classes))["miou"]
        return value


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
    """Count one picture; `boundary` is "trimap" or "transition". Errors as `confusion_matrix`."""
    codes = pair_codes(truth, prediction, num_classes, ignore, where)
    pairs = num_classes**2 + 1
    bands, outlined = 1, True
    if boundary is not None:
        bands = len(widths) + 1
        distance = DISTANCES[boundary](truth, ignore)
        outlined = distance is not None
        codes = codes + (len(widths) if distance is None else band_index(distance, widths).ravel()) * pairs
    counted = np.bincount(codes, minlength=bands * pairs).reshape(bands, pairs)[:, :-1].ravel()
    cells = np.flatnonzero(counted)
    return ImageScore(index, cells, counted[cells], outlined)


def total(scores: list[ImageScore], num_classes: int, bands: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sum over pictures: return C (K x K), and C within each of `bands` widths (bands x K x K), all int64."""
    summed = np.zeros((bands + 1) * num_classes**2, np.int64)
    for score in scores:
        # With one band asked for here, what lies in others still belongs to C.
        cells = score.cells if bands else score.cells % num_classes**2
        np.add.at(summed, cells, score.counts)
    parts = summed.reshape(bands + 1, num_classes, num_classes)
    return parts.sum(0), parts[:-1].cumsum(0)
