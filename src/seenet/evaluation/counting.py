"""What is counted of one picture, and all that this depends on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL

import seenet
from seenet.core.progress import track
from seenet.data.split import Split
from seenet.evaluation.confusion import truth_codes
from seenet.evaluation.measure import Measure
from seenet.evaluation.outcome import Boundary
from seenet.evaluation.partial import FORMAT, stamp_of
from seenet.evaluation.scores import ImageScore, score_image
from seenet.prediction.base import BasePredictor
from seenet.prediction.prefetch import prefetch
from seenet.prediction.scores import negative_log_likelihood, to_mask


@dataclass(frozen=True)
class Counting:
    """A predictor on a split, with what `evaluate` was asked for."""

    predictor: BasePredictor
    split: Split
    boundary: Boundary | None
    widths: tuple[int, ...]
    loss: bool
    measures: tuple[Measure, ...]

    def scores(self, todo: Sequence[int], what: str | None, of: int) -> Iterator[ImageScore]:
        """Predict and count the pictures `todo`, the last ones of `of`; `what` stands before the progress bar, None: no bar."""
        reads = prefetch(todo, self.split.read)
        for index, read in track(reads, what, of, of - len(todo)) if what else reads:
            yield self._score(index, *read.result())

    def _score(self, index: int, image: np.ndarray, truth: np.ndarray) -> ImageScore:
        labels, split = self.split.labels, self.split
        where = str(split.paths(index)[1] or f"{split.name} {split.key(index)}")
        truth_codes(truth, labels.num_classes, labels.ignore, where)
        masks, loss, top = [], 0.0, 0
        for stripe in self.predictor.stripes(image, truth.shape[:2]):
            masks.append(to_mask(stripe))
            bottom = top + len(masks[-1])
            if self.loss:
                loss += negative_log_likelihood(stripe, truth[top:bottom], labels.ignore)
            top = bottom
        mask = np.concatenate(masks)
        score = score_image(index, truth, mask, labels.num_classes, labels.ignore, boundary=self.boundary, widths=self.widths, where=where)
        if self.loss:
            score = replace(score, loss=loss)
        if self.measures:
            score = replace(score, measured=tuple(measure.count(index, truth, mask) for measure in self.measures))
        return score

    def stamp(self, index: int) -> bytes:
        """Changes with the files that a picture's counts are from."""
        return stamp_of(self.split.stamp(index), *(measure.stamp(index) for measure in self.measures))

    def key(self) -> dict[str, Any]:
        """What else decides counts, as JSON values: the rounding of other processors, threads and libraries too."""
        predictor, labels = self.predictor, self.split.labels
        return {
            "model": predictor.info.get("sha256"), **predictor.settings, "split": self.split.name, "classes": list(labels.classes),
            "boundary": self.boundary, "widths": list(self.widths) if self.boundary else None, "loss": self.loss,
            "measures": [measure.key for measure in self.measures], **predictor.machine,
            "pillow": PIL.__version__, "version": seenet.__version__, "format": FORMAT,
        }  # fmt: skip
