"""Score a predictor on a split, in one process or several."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL

import seenet
from seenet.core.errors import DataError, UsageError
from seenet.core.progress import track
from seenet.core.raster import LARGE
from seenet.data.split import Split
from seenet.data.windows import is_large, opened_large
from seenet.distributed import all_gather, rank_and_world
from seenet.evaluation.confusion import ImageScore, score_image, truth_codes
from seenet.evaluation.metrics import Metric, guarded
from seenet.evaluation.metrics.boundaries import WIDTHS
from seenet.evaluation.outcome import Boundary, Evaluation
from seenet.evaluation.score_journal import FORMAT, open_journal, stamp_of
from seenet.prediction.base import BasePredictor
from seenet.prediction.batch import prefetch
from seenet.prediction.result import negative_log_likelihood, to_mask

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
    """Predict each image of the split at its label's size and count its pixels.

    Under torch.distributed this is a collective operation: rank r scores images r, r + world, ...;
    every rank returns the evaluation of the whole split, equal to that of a single process, and an
    error on one rank ends all ranks.

    Args:
        boundary: also count in bands of `widths` pixels around ignored rims ("trimap") or class
            edges ("transition"). "auto" takes the trimap where the label set has rims, else the
            transition, and no bands if no label has a boundary.
        indices: images to score; None: all.
        loss: also sum the negative log-likelihood of the true classes.
        metrics: further metrics to count in the same pass, by their key in the result.
        what: title of the progress bar; None: no bar.
        journal: folder that keeps the counts of each image, so that an interrupted evaluation
            continues. The caller removes it once the result is written.

    Raises:
        DataError: model and data have different classes, a label id is out of range, there is no
            image to score, or no label has the rim or edge that `boundary` needs.
        UsageError: wrong widths.
        NotFiniteError: the network returns NaN.
        BusyError: another process writes `journal`.
    """
    order = sorted(set(range(len(split)) if indices is None else indices))
    if not order:
        raise DataError(f"{split.name}: found no image to score, expected at least one")
    widths = tuple(sorted(set(widths)))
    if not widths or widths[0] < 1:
        raise UsageError(
            f"widths {', '.join(map(str, widths))}: expected one or more whole numbers of pixels, "
            "each at least 1"
        )
    kind: Boundary | None = (
        ("trimap" if split.labels.rim else "transition") if boundary == "auto" else boundary
    )
    _check_labels(predictor, split, kind)
    metrics = dict(metrics or {})
    scorer = Scorer(predictor, split, kind, widths, loss, metrics)
    scores = _score_all(scorer, order, what, journal)
    if kind and not any(score.has_boundary for score in scores):
        if boundary != "auto":
            outline = "rim" if boundary == "trimap" else "edge"
            raise DataError(f"{split.name}: found no {outline} in any label; use --boundary none")
        kind = None
    return Evaluation(
        split.name,
        [split.key(score.index) for score in scores],
        split.labels,
        scores,
        kind,
        widths,
        loss,
        predictor.settings,
        predictor.info,
        metrics,
    )


def _score_all(
    scorer: "Scorer", order: Sequence[int], what: str | None, journal: Path | None
) -> list[ImageScore]:
    """Score this rank's share of the images; return the scores of all ranks, by index.

    Raises:
        DataError: another rank failed. An error of this rank is raised after it told the others.
    """
    rank, world = rank_and_world()
    try:
        own = _score_share(scorer, order[rank::world], None if rank else what, journal, rank)
    except Exception:
        all_gather([None])
        raise
    shares = all_gather([own])
    if None in shares:
        raise DataError(
            f"rank {shares.index(None)} could not score its images; see its own message"
        )
    return sorted((score for share in shares for score in share), key=lambda score: score.index)


def _score_share(
    scorer: "Scorer", share: Sequence[int], title: str | None, folder: Path | None, rank: int
) -> list[ImageScore]:
    """Score `share`; with a journal in `folder` take the scores it has and append the others."""
    if folder is None:
        return list(scorer.scores(share, title, len(share)))
    stamps = {index: scorer.stamp(index) for index in share}
    with open_journal(folder, scorer.key(), rank) as journal:
        scores = [
            replace(journal.scores[stamp], index=index)
            for index, stamp in stamps.items()
            if stamp in journal.scores
        ]
        if scores:
            counts = len(scores), len(share)
            log.info("%s: %d of %d images were counted before", scorer.split.name, *counts)
        done = {score.index for score in scores}
        todo = [index for index in share if index not in done]
        for score in scorer.scores(todo, title, len(share)):
            journal.add(stamps[score.index], score)
            scores.append(score)
    return scores


@dataclass(frozen=True)
class Scorer:
    """Predictor, split and options of `evaluate`, which score one image at a time."""

    predictor: BasePredictor
    split: Split
    boundary: Boundary | None
    widths: tuple[int, ...]
    loss: bool
    metrics: Mapping[str, Metric]

    def scores(self, todo: Sequence[int], title: str | None, count: int) -> Iterator[ImageScore]:
        """Predict and score the images `todo`, the last of `count`, under a bar with this title."""
        reads = prefetch(todo, self._read)
        for index, read in track(reads, title, count, count - len(todo)) if title else reads:
            opened, truth = read.result()
            with opened as image:
                yield self._score(index, image, truth)

    def _read(self, index: int) -> tuple[AbstractContextManager[Any], np.ndarray]:
        """Read a mask and its image; a large TIFF is only opened, and read while it is scored."""
        if is_large(self.split, index, LARGE):
            return opened_large(self.split, index), self.split.mask(index)
        image, truth = self.split.read(index)
        return nullcontext(image), truth

    def _score(self, index: int, image: Any, truth: np.ndarray) -> ImageScore:
        labels, split = self.split.labels, self.split
        where = str(split.paths(index)[1] or f"{split.name} {split.key(index)}")
        # Find wrong ids before the network spends time on the image.
        truth_codes(truth, labels.num_classes, labels.ignore, where)
        masks, loss, top = [], 0.0, 0
        for chunk in self.predictor.row_chunks(image, truth.shape[:2]):
            masks.append(to_mask(chunk))
            bottom = top + len(masks[-1])
            if self.loss:
                loss += negative_log_likelihood(chunk, truth[top:bottom], labels.ignore)
            top = bottom
        mask = np.concatenate(masks)
        score = score_image(
            index,
            truth,
            mask,
            labels.num_classes,
            labels.ignore,
            boundary=self.boundary,
            widths=self.widths,
            where=where,
        )
        counts = []
        for name, metric in self.metrics.items():
            with guarded(name):
                counts.append(metric.count(index, truth, mask))
        return replace(score, loss=loss, metric_counts=tuple(counts))

    def stamp(self, index: int) -> bytes:
        """Return a hash of the files that decide the counts of one image."""
        return stamp_of(
            self.split.stamp(index), *(metric.stamp(index) for metric in self.metrics.values())
        )

    def key(self) -> dict[str, Any]:
        """Return everything else that decides the counts, as JSON values.

        Processor, threads and library versions belong to it, since they change the rounding.
        """
        predictor, labels = self.predictor, self.split.labels
        return {
            "model": predictor.info.get("sha256"),
            **predictor.settings,
            "split": self.split.name,
            "classes": list(labels.classes),
            "boundary": self.boundary,
            "widths": list(self.widths) if self.boundary else None,
            "loss": self.loss,
            "measures": list(self.metrics),
            **predictor.machine,
            "pillow": PIL.__version__,
            "version": seenet.__version__,
            "format": FORMAT,
        }


def _check_labels(predictor: BasePredictor, split: Split, boundary: Boundary | None) -> None:
    """Raise DataError where model and data have other classes, or labels have no rim for a trimap.

    The classes must agree in number, names and order.
    """
    model, data = predictor.labels, split.labels
    if model.classes != data.classes:
        both = zip(model.classes, data.classes, strict=False)
        first = next(
            (f", such as {one!r} for {other!r}" for one, other in both if one != other), ""
        )
        raise DataError(
            f"{split.name}: the model knows {model.num_classes} classes ({model.name}), the data "
            f"has {data.num_classes} ({data.name}){first}; expected the same names in the same "
            "order; use a model trained on these labels"
        )
    if boundary == "trimap" and not data.rim:
        fix = "use --boundary transition"
        if data.name == "folder":
            fix += ", or set `rim: true` in seenet.yaml if ignored pixels trace the objects"
        raise DataError(
            f"{split.name}: labels {data.name} have no ignored rim, which a trimap needs; {fix}"
        )
