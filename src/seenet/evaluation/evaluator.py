"""Score a predictor on a split: predict each picture, count it, gather what all processes counted."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL

import seenet
from seenet.core.errors import DataError, Terminated, UsageError
from seenet.core.progress import track
from seenet.data.split import Split
from seenet.distributed import all_gather, rank_and_world
from seenet.evaluation.confusion import ImageScore, score_image, truth_codes
from seenet.evaluation.metrics import Metric
from seenet.evaluation.metrics.boundaries import WIDTHS
from seenet.evaluation.outcome import Boundary, Evaluation
from seenet.evaluation.score_journal import FORMAT, open_journal, stamp_of
from seenet.prediction.base import BasePredictor
from seenet.prediction.prefetch import prefetch
from seenet.prediction.scores import negative_log_likelihood, to_mask

__all__ = ["Boundary", "Evaluation", "evaluate"]

log = logging.getLogger("seenet")


def evaluate(
    predictor: BasePredictor,
    split: Split,
    *,
    boundary: Boundary | Literal["auto"] | None = None,
    widths: Sequence[int] = WIDTHS,
    indices: Sequence[int] | None = None,
    loss: bool = False,
    metrics: Mapping[str, Metric] | None = None,
    what: str | None = None,
    journal: Path | None = None,
) -> Evaluation:
    """Predict each picture of the split at its label's size and count.

    Under torch.distributed rank r takes pictures r, r + world, ...; then every rank must call this,
    every rank gets the whole evaluation, the same as one process alone would, and what one rank
    raises ends all.

    Args:
        boundary: also count in bands of `widths` pixels around rims ("trimap", sets with a rim) or
            class edges ("transition"); "auto" takes rims where the labels have them, else edges, and
            does without where no label has any.
        indices: these pictures of the split alone.
        loss: also sum the negative log-likelihood of the true classes.
        metrics: count these too, in the same pass; by their key in the result.
        what: stands before the progress bar; None: no bar.
        journal: folder where the counts of each picture are kept as they come, and taken from where
            they are there already. Who calls removes it when the outcome is written.

    Raises:
        DataError: labels of model and data differ, a label id out of range, nothing to score, no rim
            or edge where bands are asked for.
        UsageError: widths.
        NotFiniteError: the network gives NaN.
        BusyError: another process writes `journal`.
    """
    order, widths = _indices(split, indices), tuple(sorted(set(widths)))
    if not widths or min(widths) < 1:
        raise UsageError(f"widths {', '.join(map(str, widths))}: expected at least one, whole numbers of pixels from 1")
    kind: Boundary | None = ("trimap" if split.labels.rim else "transition") if boundary == "auto" else boundary
    _check(predictor, split, kind)
    metrics = dict(metrics or {})
    counter = Counter(predictor, split, kind, widths, loss, metrics)
    rank, world = rank_and_world()
    share, shown = order[rank::world], what if rank == 0 else None

    def score() -> list[ImageScore]:
        return _resumed(counter, share, shown, journal, rank) if journal else list(counter.scores(share, shown, len(share)))

    scores = _gathered(score)
    if kind and not any(score.outlined for score in scores):
        if boundary == "auto":
            kind = None
        else:
            outline = "rim" if boundary == "trimap" else "edge"
            raise DataError(f"{split.name}: found no {outline} in any label; use --boundary none")
    keys = [split.key(score.index) for score in scores]
    return Evaluation(split.name, keys, split.labels, scores, kind, widths, loss, predictor.settings, predictor.info, metrics)


def _gathered(score: Callable[[], list[ImageScore]]) -> list[ImageScore]:
    """Run `score` here; return the scores of all ranks by index. What it raises is raised once the others know of it."""
    rank, world = rank_and_world()
    if world == 1:
        return score()
    try:
        mine = score()
    except Exception:
        all_gather([(rank, None)])
        raise
    everyone: list[tuple[int, list[ImageScore] | None]] = all_gather([(rank, mine)])
    for other, scores in everyone:
        if scores is None:
            raise DataError(f"rank {other} could not score its pictures; its own message says why")
    return sorted((score for _, scores in everyone for score in scores or []), key=lambda score: score.index)


def _resumed(counter: "Counter", share: Sequence[int], what: str | None, journal: Path, rank: int) -> list[ImageScore]:
    """Score `share`: take the pictures that the journal has from there, append the others to it."""
    name, stamps = counter.split.name, {index: counter.stamp(index) for index in share}
    with open_journal(journal, counter.key(), rank) as kept:
        scores = [replace(kept.found[stamp], index=index) for index, stamp in stamps.items() if stamp in kept.found]
        done = {score.index for score in scores}
        if done:
            log.info("%s: %d of %d pictures were counted before; going on", name, len(done), len(share))
        try:
            for score in counter.scores([index for index in share if index not in done], what, len(share)):
                kept.add(stamps[score.index], score)
                scores.append(score)
        except (KeyboardInterrupt, Terminated):
            log.info("%s: %d of %d pictures are counted; the same command goes on", name, len(scores), len(share))
            raise
    return sorted(scores, key=lambda score: score.index)


@dataclass(frozen=True)
class Counter:
    """Count pictures for `evaluate`, whose arguments these are; know all that the counts depend on."""

    predictor: BasePredictor
    split: Split
    boundary: Boundary | None
    widths: tuple[int, ...]
    loss: bool
    metrics: Mapping[str, Metric]

    def scores(self, todo: Sequence[int], what: str | None, of: int) -> Iterator[ImageScore]:
        """Predict and count the pictures `todo`, the last ones of `of`, under a bar named `what`."""
        reads = prefetch(todo, self.split.read)
        for index, read in track(reads, what, of, of - len(todo)) if what else reads:
            yield self._score(index, *read.result())

    def _score(self, index: int, image: np.ndarray, truth: np.ndarray) -> ImageScore:
        labels, split = self.split.labels, self.split
        where = str(split.paths(index)[1] or f"{split.name} {split.key(index)}")
        # Before the network looks at the picture.
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
        return replace(score, loss=loss, measured=tuple(metric.count(index, truth, mask) for metric in self.metrics.values()))

    def stamp(self, index: int) -> bytes:
        """Return a hash that changes with the files that a picture's counts are from."""
        return stamp_of(self.split.stamp(index), *(metric.stamp(index) for metric in self.metrics.values()))

    def key(self) -> dict[str, Any]:
        """Return what else decides counts, as JSON values: the rounding of other processors, threads and libraries too."""
        predictor, labels = self.predictor, self.split.labels
        return {
            "model": predictor.info.get("sha256"), **predictor.settings, "split": self.split.name, "classes": list(labels.classes),
            "boundary": self.boundary, "widths": list(self.widths) if self.boundary else None, "loss": self.loss,
            "measures": list(self.metrics), **predictor.machine,
            "pillow": PIL.__version__, "version": seenet.__version__, "format": FORMAT,
        }  # fmt: skip


def _indices(split: Split, indices: Sequence[int] | None) -> Sequence[int]:
    order = range(len(split)) if indices is None else sorted(set(indices))
    if not order:
        raise DataError(f"{split.name}: found no picture to score, expected at least one")
    return order


def _check(predictor: BasePredictor, split: Split, boundary: Boundary | None) -> None:
    """Raise DataError where model and data name other classes, or the labels have no rim for a trimap."""
    model, data = predictor.labels, split.labels
    if model.num_classes != data.num_classes:
        raise DataError(
            f"{split.name}: the model knows {model.num_classes} classes ({model.name}), the data has "
            f"{data.num_classes} ({data.name}); use a model trained on these labels"
        )
    for index, (one, other) in enumerate(zip(model.classes, data.classes, strict=True)):
        if one != other:
            raise DataError(
                f"{split.name}: class {index} is {one!r} for the model, {other!r} in the data; expected the same names and order"
            )
    if boundary == "trimap" and not data.rim:
        own = ", or set `rim: true` in seenet.yaml if ignored pixels trace the objects" if data.name == "folder" else ""
        raise DataError(f"{split.name}: labels {data.name} have no rim around objects, which trimap needs; use --boundary transition{own}")
