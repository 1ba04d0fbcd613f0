"""The outcome of an evaluation: what its result file says, and what the terminal shows of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

import seenet
from seenet.core.labels import LabelSet
from seenet.evaluation.confusion import ImageScore, total
from seenet.evaluation.metrics import Metric, percent, table
from seenet.evaluation.metrics.bootstrap import miou_interval
from seenet.evaluation.metrics.boundaries import bands_table
from seenet.evaluation.metrics.iou import iou_scores, mean

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
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """By their key in the result; `ImageScore.measured` is from these, in this order."""

    @cached_property
    def _sums(self) -> tuple[np.ndarray, np.ndarray]:
        return total(self.per_image, self.labels.num_classes, len(self.widths) if self.boundary else 0)

    @property
    def matrix(self) -> np.ndarray:
        """Return C[t, p] over all pictures, int64 K x K."""
        return self._sums[0]

    @property
    def bands(self) -> np.ndarray:
        """Return C within each width, int64 widths x K x K; empty where no boundary was asked for."""
        return self._sums[1]

    @property
    def miou(self) -> float | None:
        """Return the mIoU pooled over the set, 0..1; None where every pixel is ignored."""
        value: float | None = iou_scores(self.matrix)["miou"]
        return value

    @property
    def loss(self) -> float | None:
        """Return the mean negative log-likelihood over all valid pixels, nats; None if not asked for or none is valid."""
        pixels = int(self.matrix.sum())
        # fsum: exact, so that it does not depend on who counted which picture.
        return math.fsum(score.loss for score in self.per_image) / pixels if self.with_loss and pixels else None

    def worst(self, count: int) -> list[ImageScore]:
        """Return the pictures of the lowest mIoU, the lowest first; leave out those where nothing is scored."""
        return self._ranked()[:count]

    def best(self, count: int) -> list[ImageScore]:
        """Return the pictures of the highest mIoU, the highest first."""
        return self._ranked()[::-1][:count]

    def _ranked(self) -> list[ImageScore]:
        ious = {score.index: score.miou(self.labels.num_classes) for score in self.per_image}
        scored = [score for score in self.per_image if ious[score.index] is not None]
        return sorted(scored, key=lambda score: (ious[score.index], score.index))

    def result(
        self, *, model: dict[str, Any] | None = None, command: str | None = None, mean_over: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Return everything a result file says (docs/metrics.md), as JSON values; shares are 0..1.

        Args:
            model: {"file", "sha256"} instead of the predictor's `info`, for a file that is written
                after the evaluation.
            command: quoted.
            mean_over: classes over which one more mIoU is taken, from the same matrix.
        """
        numbers = iou_scores(self.matrix)
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
                name: metric.result(self.matrix, [score.measured[place] for score in self.per_image])
                for place, (name, metric) in enumerate(self.metrics.items())
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
            "miou": {str(width): iou_scores(band)["miou"] for width, band in zip(self.widths, self.bands, strict=True)},
            "images_without_outline": sum(not score.outlined for score in self.per_image),
        }


def tables(result: dict[str, Any], metrics: Mapping[str, Metric] | None = None) -> Group:
    """Show a result of `Evaluation.result` in the terminal; shares in percent.

    The table of classes, the means under it, the bands, and what each of `metrics` (those of the
    evaluation) has to show.
    """
    parts = [(name, metric, result[name]) for name, metric in (metrics or {}).items()]
    more = {heading: shares for _, metric, part in parts for heading, shares in metric.columns(part).items()}
    title = f"{result['data']}/{result['split']}, {result['images']} pictures"
    classes = table(title, ("class", "IoU", "accuracy", "Dice", "pixels", *more), left=("class",))
    pixels = sum(entry["pixels"] for entry in result["classes"])
    for k, entry in enumerate(result["classes"]):
        shares = [entry["iou"], entry["accuracy"], entry["dice"], entry["pixels"] / pixels if pixels else None]
        classes.add_row(entry["name"], *map(percent, [*shares, *(column[k] for column in more.values())]))
    classes.add_section()
    means = [percent(result["miou"]), percent(result["mean_class_accuracy"]), "", "", *(percent(column[-1]) for column in more.values())]
    classes.add_row(f"mean of {len(result['classes']) - len(result['absent'])}", *means, style="bold")
    shown: list[RenderableType] = [classes, *map(Text, _lines(result))]
    if result["boundary"]:
        shown.append(bands_table(result["boundary"]))
    return Group(*shown, *(table for name, metric, part in parts for table in metric.tables(name, part)))


def _lines(result: dict[str, Any]) -> list[str]:
    """Say what stands under the table of classes."""
    weighted = percent(result["frequency_weighted_iou"])
    loss = "" if result["loss"] is None else f", loss {result['loss']:.4f}"
    lines = [f"pixel accuracy {percent(result['pixel_accuracy'])}, frequency-weighted IoU {weighted}{loss}"]
    if result["absent"]:
        lines.append(f"absent, left out of the mean: {', '.join(result['absent'])}")
    # One picture, drawn again and again, has an interval of no width that would say nothing.
    several = result["images"] > 1
    if several and result["miou_interval"]:
        lines.append(f"95 % interval of the mIoU, pictures drawn with replacement: {_interval(result)}")
    if over := result["mean_over"]:
        interval = f" ({_interval(over)})" if several and over["miou_interval"] else ""
        lines.append(f"mIoU over {', '.join(over['classes'])}: {percent(over['miou'])}{interval}")
    return lines


def _interval(entry: dict[str, Any]) -> str:
    return f"{percent(entry['miou_interval']['low'])} to {percent(entry['miou_interval']['high'])}"
