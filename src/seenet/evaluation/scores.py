"""What one picture adds to an evaluation: its confusion matrix, small enough to keep for all of them."""

from dataclasses import dataclass

import numpy as np

from seenet.evaluation.boundaries import DISTANCES, band_index
from seenet.evaluation.confusion import metrics, pair_codes


@dataclass(frozen=True)
class ImageScore:
    """Counts of one picture, by truth, prediction and band, without the zeros.

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
    """What each further `Measure` counted, int64."""

    def matrix(self, num_classes: int) -> np.ndarray:
        """C[t, p] of this picture, int64 K x K."""
        return total([self], num_classes)[0]

    def miou(self, num_classes: int) -> float | None:
        """Mean IoU over the classes in its truth or prediction; None where nothing is scored."""
        value: float | None = metrics(self.matrix(num_classes))["miou"]
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
    """Sum over pictures: C (K x K), and C within each of `bands` widths (bands x K x K), all int64."""
    summed = np.zeros((bands + 1) * num_classes**2, np.int64)
    for score in scores:
        # With one band asked for here, what lies in others still belongs to C.
        cells = score.cells if bands else score.cells % num_classes**2
        np.add.at(summed, cells, score.counts)
    parts = summed.reshape(bands + 1, num_classes, num_classes)
    return parts.sum(0), parts[:-1].cumsum(0)
