"""Results of an evaluation: the content of result.json and the tables on the terminal."""

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
from seenet.evaluation.metrics import Metric, guarded, percent, table
from seenet.evaluation.metrics.bootstrap import miou_interval
from seenet.evaluation.metrics.boundaries import bands_table
from seenet.evaluation.metrics.iou import iou_scores, mean, mean_iou

Boundary = Literal["trimap", "transition"]
SIZE_RULE = (
    "scored at the label's own size; own-grid scores resized once, bilinear, "
    "align_corners=False; labels never resized"
)


@dataclass(frozen=True)
class Evaluation:
    """Counts of every image of a split, with the settings that they were made with."""

    split: str
    """Data set and split, such as `camvid/val`."""
    keys: list[str]
    """Keys of the images in `per_image`."""
    labels: LabelSet
    per_image: list[ImageScore]
    boundary: Boundary | None
    widths: tuple[int, ...]
    with_loss: bool
    settings: dict[str, Any]
    info: dict[str, Any]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """Further metrics by their key in the result, in the order of `ImageScore.metric_counts`."""

    @cached_property
    def _totals(self) -> tuple[np.ndarray, np.ndarray]:
        widths = len(self.widths) if self.boundary else 0
        return total(self.per_image, self.labels.num_classes, widths)

    @property
    def matrix(self) -> np.ndarray:
        """Return the confusion matrix C[t, p] over all images, int64 K x K."""
        return self._totals[0]

    @property
    def bands(self) -> np.ndarray:
        """Return C within each width, int64 widths x K x K; empty without boundary bands."""
        return self._totals[1]

    @property
    def miou(self) -> float | None:
        """Return the mIoU pooled over the split, 0..1; None where every pixel is ignored."""
        return mean_iou(self.matrix)

    @property
    def loss(self) -> float | None:
        """Return the mean negative log-likelihood over all valid pixels, nats.

        None if it was not requested or no pixel is valid.
        """
        pixels = int(self.matrix.sum())
        if not self.with_loss or not pixels:
            return None
        # fsum is exact, so the sum does not depend on how the ranks shared the images.
        return math.fsum(score.loss for score in self.per_image) / pixels

    def worst(self, count: int) -> list[ImageScore]:
        """Return the `count` images of lowest mIoU, lowest first, without those not scored."""
        return self._ranked()[:count]

    def best(self, count: int) -> list[ImageScore]:
        """Return the `count` images of highest mIoU, highest first."""
        return self._ranked()[::-1][:count]

    def _ranked(self) -> list[ImageScore]:
        ious = {score.index: score.miou(self.labels.num_classes) for score in self.per_image}
        scored = [score for score in self.per_image if ious[score.index] is not None]
        return sorted(scored, key=lambda score: (ious[score.index], score.index))

    def result(
        self,
        *,
        model: dict[str, Any] | None = None,
        command: str | None = None,
        mean_over: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        """Return the content of a result file (docs/metrics.md) as JSON values; shares in 0..1.

        Args:
            model: {"file", "sha256"} instead of the predictor's `info`, for a model file that is
                written after the evaluation.
            command: command line to record.
            mean_over: classes of one more mIoU, from the same matrix.
        """
        scores = iou_scores(self.matrix)
        names = self.labels.classes
        data, _, split = self.split.partition("/")
        columns = ("iou", "accuracy", "dice", "pixels")
        return {
            "miou": scores["miou"],
            "miou_interval": miou_interval(self.per_image, len(names)),
            "mean_over": self._mean_over(scores["iou"], mean_over),
            "pixel_accuracy": scores["pixel_accuracy"],
            "mean_class_accuracy": scores["mean_class_accuracy"],
            "frequency_weighted_iou": scores["frequency_weighted_iou"],
            "loss": self.loss,
            "classes": [
                {"name": name, **{column: scores[column][k] for column in columns}}
                for k, name in enumerate(names)
            ],
            "absent": [names[k] for k in scores["absent"]],
            "absent_rule": "classes with no pixel in truth and prediction are left out of the "
            "means",
            "boundary": self._boundary_result(),
            **self._metric_results(),
            "data": data,
            "split": split,
            "images": len(self.per_image),
            "labels": self.labels.name,
            "ignore_rule": f"label {self.labels.ignore} is not scored; any other id that is no "
            "class is an error",
            "size_rule": SIZE_RULE,
            **self.settings,
            "model": model or self.info or None,
            "version": seenet.__version__,
            "command": command,
            "confusion": self.matrix.tolist(),
            "per_image": [
                {"key": key, "miou": score.miou(len(names))}
                for key, score in zip(self.keys, self.per_image, strict=True)
            ],
        }

    def _mean_over(
        self, iou: list[float | None], classes: Sequence[int] | None
    ) -> dict[str, Any] | None:
        if classes is None:
            return None
        names = self.labels.classes
        return {
            "classes": [names[k] for k in classes],
            "absent": [names[k] for k in classes if iou[k] is None],
            "miou": mean([iou[k] for k in classes]),
            "miou_interval": miou_interval(self.per_image, len(names), classes),
        }

    def _metric_results(self) -> dict[str, Any]:
        """Return the results of further metrics, as JSON values."""
        results = {}
        for place, (name, metric) in enumerate(self.metrics.items()):
            counted = [score.metric_counts[place] for score in self.per_image]
            with guarded(name):
                results[name] = metric.result(self.matrix, counted)
        return results

    def _boundary_result(self) -> dict[str, Any] | None:
        if self.boundary is None:
            return None
        return {
            "kind": self.boundary,
            "miou": {
                str(width): mean_iou(band)
                for width, band in zip(self.widths, self.bands, strict=True)
            },
            "images_without_outline": sum(not score.has_boundary for score in self.per_image),
        }


def tables(result: dict[str, Any], metrics: Mapping[str, Metric] | None = None) -> Group:
    """Return the tables of a result for the terminal, in percent.

    Args:
        result: as `Evaluation.result` returns it.
        metrics: those of the evaluation; each adds columns and tables of its own.
    """
    parts = [(name, metric, result[name]) for name, metric in (metrics or {}).items()]
    more: dict[str, Sequence[float | None]] = {}
    for _, metric, part in parts:
        more |= metric.columns(part)
    entries = result["classes"]
    pixels = sum(entry["pixels"] for entry in entries)
    title = f"{result['data']}/{result['split']}, {result['images']} images"
    classes = table(title, ("class", "IoU", "accuracy", "Dice", "pixels", *more), left=("class",))
    for k, entry in enumerate(entries):
        share = entry["pixels"] / pixels if pixels else None
        shares = [entry["iou"], entry["accuracy"], entry["dice"], share]
        classes.add_row(
            entry["name"], *map(percent, [*shares, *(column[k] for column in more.values())])
        )
    classes.add_section()
    classes.add_row(
        f"mean of {len(entries) - len(result['absent'])}",
        percent(result["miou"]),
        percent(result["mean_class_accuracy"]),
        "",
        "",
        *(percent(column[-1]) for column in more.values()),
        style="bold",
    )
    shown: list[RenderableType] = [classes, *map(Text, _lines(result))]
    if result["boundary"]:
        shown.append(bands_table(result["boundary"]))
    return Group(
        *shown, *(table for name, metric, part in parts for table in metric.tables(name, part))
    )


def _lines(result: dict[str, Any]) -> list[str]:
    """Return the lines below the table of classes."""
    weighted = percent(result["frequency_weighted_iou"])
    loss = "" if result["loss"] is None else f", loss {result['loss']:.4f}"
    lines = [
        f"pixel accuracy {percent(result['pixel_accuracy'])}, "
        f"frequency-weighted IoU {weighted}{loss}"
    ]
    if result["absent"]:
        lines.append(f"absent, left out of the mean: {', '.join(result['absent'])}")
    # Resampling a single image gives an interval of width 0, which says nothing.
    several = result["images"] > 1
    if several and result["miou_interval"]:
        lines.append(f"95 % interval of the mIoU (bootstrap over images): {_interval(result)}")
    if over := result["mean_over"]:
        interval = f" ({_interval(over)})" if several and over["miou_interval"] else ""
        lines.append(f"mIoU over {', '.join(over['classes'])}: {percent(over['miou'])}{interval}")
    return lines


def _interval(entry: dict[str, Any]) -> str:
    return f"{percent(entry['miou_interval']['low'])} to {percent(entry['miou_interval']['high'])}"
