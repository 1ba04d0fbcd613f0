"""The outcome of an evaluation, and what its result file says."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

import seenet
from seenet.core.labels import LabelSet
from seenet.evaluation.bootstrap import miou_interval
from seenet.evaluation.confusion import mean, metrics
from seenet.evaluation.measure import Measure
from seenet.evaluation.scores import ImageScore, total

Boundary = Literal["trimap", "transition"]
SIZE_RULE = "scored at the label's own size; own-grid scores resized once, bilinear, align_corners=False; labels never resized"


@dataclass(frozen=True)
class Evaluation:
    """Counts of every picture, and what is needed to say how they came about."""

    split: str
    """As in `camvid/val`."""
    keys: list[str]
    """Of the pictures in `per_image`."""
    labels: LabelSet
    per_image: list[ImageScore]
    boundary: Boundary | None
    widths: tuple[int, ...]
    with_loss: bool
    settings: dict[str, Any]
    info: dict[str, Any]
    measures: tuple[Measure, ...] = ()
    """Those that `ImageScore.measured` is from, in this order."""

    @cached_property
    def _sums(self) -> tuple[np.ndarray, np.ndarray]:
        return total(self.per_image, self.labels.num_classes, len(self.widths) if self.boundary else 0)

    @property
    def matrix(self) -> np.ndarray:
        """C[t, p] over all pictures, int64 K x K."""
        return self._sums[0]

    @property
    def bands(self) -> np.ndarray:
        """C within each width, int64 widths x K x K; empty where no boundary was asked for."""
        return self._sums[1]

    @property
    def miou(self) -> float | None:
        """Pooled over the set, 0..1; None where every pixel is ignored."""
        value: float | None = metrics(self.matrix)["miou"]
        return value

    @property
    def loss(self) -> float | None:
        """Mean negative log-likelihood over all valid pixels, nats; None where not asked for or nothing is valid."""
        pixels = int(self.matrix.sum())
        # fsum: exact, so that it does not depend on who counted which picture.
        return math.fsum(score.loss for score in self.per_image) / pixels if self.with_loss and pixels else None

    def worst(self, count: int) -> list[ImageScore]:
        """Pictures of the lowest mIoU, the lowest first; those where nothing is scored are left out."""
        return self._ranked()[:count]

    def best(self, count: int) -> list[ImageScore]:
        """Pictures of the highest mIoU, the highest first."""
        return self._ranked()[::-1][:count]

    def _ranked(self) -> list[ImageScore]:
        ious = {score.index: score.miou(self.labels.num_classes) for score in self.per_image}
        scored = [score for score in self.per_image if ious[score.index] is not None]
        return sorted(scored, key=lambda score: (ious[score.index], score.index))

    def result(
        self, *, model: dict[str, Any] | None = None, command: str | None = None, mean_over: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Everything a result file says (docs/metrics.md), as JSON values; shares are 0..1.

        `model` ({"file", "sha256"}) replaces the predictor's `info`, for a file that is written after the evaluation;
        `mean_over` are classes over which one more mIoU is taken, from the same matrix.
        """
        numbers = metrics(self.matrix)
        names = self.labels.classes
        data, _, split = self.split.partition("/")
        columns = ("iou", "accuracy", "dice", "pixels")
        return {
            "miou": numbers["miou"],
            "miou_interval": miou_interval(self.per_image, len(names)),
            "mean_over": self._mean_over(numbers["iou"], mean_over),
            "pixel_accuracy": numbers["pixel_accuracy"],
            "mean_class_accuracy": numbers["mean_class_accuracy"],
            "frequency_weighted_iou": numbers["frequency_weighted_iou"],
            "loss": self.loss,
            "classes": [{"name": name, **{c: numbers[c][k] for c in columns}} for k, name in enumerate(names)],
            "absent": [names[k] for k in numbers["absent"]],
            "absent_rule": "classes with no pixel in truth and prediction are left out of the means",
            "boundary": self._boundary_result(),
            **{
                measure.key: measure.result(self.matrix, [score.measured[place] for score in self.per_image])
                for place, measure in enumerate(self.measures)
            },
            "data": data,
            "split": split,
            "images": len(self.per_image),
            "labels": self.labels.name,
            "ignore_rule": f"label {self.labels.ignore} is not scored; any other id that is no class is an error",
            "size_rule": SIZE_RULE,
            **self.settings,
            "model": model or self.info or None,
            "version": seenet.__version__,
            "command": command,
            "confusion": self.matrix.tolist(),
            "per_image": [{"key": key, "miou": score.miou(len(names))} for key, score in zip(self.keys, self.per_image, strict=True)],
        }

    def _mean_over(self, iou: list[float | None], classes: Sequence[int] | None) -> dict[str, Any] | None:
        if classes is None:
            return None
        names = self.labels.classes
        return {
            "classes": [names[k] for k in classes],
            "absent": [names[k] for k in classes if iou[k] is None],
            "miou": mean([iou[k] for k in classes]),
            "miou_interval": miou_interval(self.per_image, len(names), classes),
        }

    def _boundary_result(self) -> dict[str, Any] | None:
        if self.boundary is None:
            return None
        return {
            "kind": self.boundary,
            "miou": {str(width): metrics(band)["miou"] for width, band in zip(self.widths, self.bands, strict=True)},
            "images_without_outline": sum(not score.outlined for score in self.per_image),
        }
