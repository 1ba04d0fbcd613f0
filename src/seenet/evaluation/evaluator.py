"""Score a predictor on a split."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from seenet.core.errors import DataError, UsageError
from seenet.core.progress import track
from seenet.data.split import Split
from seenet.evaluation.boundaries import WIDTHS
from seenet.evaluation.gather import gather_scores, ranks
from seenet.evaluation.measure import Measure
from seenet.evaluation.outcome import Boundary, Evaluation
from seenet.evaluation.scores import ImageScore, score_image
from seenet.prediction.predictor import Predictor, to_mask
from seenet.prediction.prefetch import prefetch

__all__ = ["Boundary", "Evaluation", "evaluate"]


def evaluate(
    predictor: Predictor,
    split: Split,
    *,
    boundary: Boundary | Literal["auto"] | None = None,
    widths: Sequence[int] = WIDTHS,
    indices: Sequence[int] | None = None,
    loss: bool = False,
    measures: Sequence[Measure] = (),
    what: str | None = None,
) -> Evaluation:
    """Predict each picture of the split at its label's size and count.

    Under torch.distributed rank r takes pictures r, r + world, ...; then every rank must call this, every rank gets the
    whole evaluation, the same as one process alone would, and what one rank raises ends all.

    Args:
        boundary: also count in bands of `widths` pixels around rims ("trimap", sets with a rim) or
            class edges ("transition"); "auto" takes rims where the labels have them, else edges, and does
            without where no label has any.
        indices: these pictures of the split alone.
        loss: also sum the negative log-likelihood of the true classes.
        measures: count these too, in the same pass.
        what: stands before the progress bar; None: no bar.

    Raises DataError: labels of model and data differ, a label id out of range, nothing to score, no rim or edge where
    bands are asked for; UsageError: widths; NotFiniteError: the network gives NaN.
    """
    order, widths = _indices(split, indices), tuple(sorted(set(widths)))
    if not widths or min(widths) < 1:
        raise UsageError(f"widths {', '.join(map(str, widths))}: expected at least one, whole numbers of pixels from 1")
    kind: Boundary | None = ("trimap" if split.labels.rim else "transition") if boundary == "auto" else boundary
    _check(predictor, split, kind)
    rank, world = ranks()

    def mine() -> list[ImageScore]:
        return _score(predictor, split, order[rank::world], kind, widths, loss, measures, what if rank == 0 else None)

    scores = gather_scores(mine, predictor.device)
    if kind and not any(score.outlined for score in scores):
        if boundary == "auto":
            kind = None
        else:
            outline = "rim" if boundary == "trimap" else "edge"
            raise DataError(f"{split.name}: found no {outline} in any label; use --boundary none")
    keys = [split.key(score.index) for score in scores]
    return Evaluation(split.name, keys, split.labels, scores, kind, widths, loss, predictor.settings, predictor.info, tuple(measures))


def _score(
    predictor: Predictor,
    split: Split,
    order: Sequence[int],
    boundary: Boundary | None,
    widths: tuple[int, ...],
    with_loss: bool,
    measures: Sequence[Measure],
    what: str | None,
) -> list[ImageScore]:
    labels = split.labels
    scores = []
    reads = prefetch(order, split.read)
    for index, read in track(reads, what, len(order)) if what else reads:
        image, truth = read.result()
        found = predictor.scores(image, truth.shape[:2])
        where = str(split.paths(index)[1] or f"{split.name} {split.key(index)}")
        mask = to_mask(found)
        score = score_image(index, truth, mask, labels.num_classes, labels.ignore, boundary=boundary, widths=widths, where=where)
        if with_loss:
            target = torch.from_numpy(truth.astype(np.int64)).to(found.device)
            nll = F.cross_entropy(found[None], target[None], ignore_index=labels.ignore, reduction="sum")
            score = replace(score, loss=float(nll))
        if measures:
            score = replace(score, measured=tuple(measure.count(index, truth, mask) for measure in measures))
        scores.append(score)
    return scores


def _indices(split: Split, indices: Sequence[int] | None) -> Sequence[int]:
    order = range(len(split)) if indices is None else sorted(set(indices))
    if not order:
        raise DataError(f"{split.name}: found no picture to score, expected at least one")
    return order


def _check(predictor: Predictor, split: Split, boundary: Boundary | None) -> None:
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
        raise DataError(f"{split.name}: labels {data.name} have no rim around objects, which trimap needs; use --boundary transition")
