"""What is counted of one picture, and all that this depends on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL
import torch
from torch.nn import functional as F

import seenet
from seenet.core.progress import track
from seenet.data.split import Split
from seenet.evaluation.measure import Measure
from seenet.evaluation.outcome import Boundary
from seenet.evaluation.partial import FORMAT, stamp_of
from seenet.evaluation.scores import ImageScore, score_image
from seenet.prediction.predictor import Predictor, to_mask
from seenet.prediction.prefetch import prefetch


@dataclass(frozen=True)
class Counting:
    """A predictor on a split, with what `evaluate` was asked for."""

    predictor: Predictor
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
        found = self.predictor.scores(image, truth.shape[:2])
        where = str(split.paths(index)[1] or f"{split.name} {split.key(index)}")
        mask = to_mask(found)
        score = score_image(index, truth, mask, labels.num_classes, labels.ignore, boundary=self.boundary, widths=self.widths, where=where)
        if self.loss:
            target = torch.from_numpy(truth.astype(np.int64)).to(found.device)
            nll = F.cross_entropy(found[None], target[None], ignore_index=labels.ignore, reduction="sum")
            score = replace(score, loss=float(nll))
        if self.measures:
            score = replace(score, measured=tuple(measure.count(index, truth, mask) for measure in self.measures))
        return score

    def stamp(self, index: int) -> bytes:
        """Changes with the files that a picture's counts are from."""
        return stamp_of(self.split.stamp(index), *(measure.stamp(index) for measure in self.measures))

    def key(self) -> dict[str, Any]:
        """What else decides counts, as JSON values: the rounding of other processors, threads and libraries too."""
        predictor, labels = self.predictor, self.split.labels
        cuda = predictor.device.type == "cuda"
        return {
            "model": predictor.info.get("sha256"), **predictor.settings, "split": self.split.name, "classes": list(labels.classes),
            "boundary": self.boundary, "widths": list(self.widths) if self.boundary else None, "loss": self.loss,
            "measures": [measure.key for measure in self.measures], "device": predictor.device.type, "threads": torch.get_num_threads(),
            "processor": torch.cuda.get_device_name(predictor.device) if cuda else torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__, "pillow": PIL.__version__, "version": seenet.__version__, "format": FORMAT,
        }  # fmt: skip
