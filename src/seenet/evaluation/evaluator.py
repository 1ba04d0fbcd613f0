"""Score a predictor on a split."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from seenet.core.errors import DataError, Terminated, UsageError
from seenet.core.processes import ranks
from seenet.data.split import Split
from seenet.evaluation.boundaries import WIDTHS
from seenet.evaluation.counting import Counting
from seenet.evaluation.gather import gather_scores
from seenet.evaluation.measure import Measure
from seenet.evaluation.outcome import Boundary, Evaluation
from seenet.evaluation.partial import open_partial
from seenet.evaluation.scores import ImageScore
from seenet.prediction.base import BasePredictor

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
    measures: Sequence[Measure] = (),
    what: str | None = None,
    partial: Path | None = None,
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
        partial: folder where the counts of each picture are kept as they come, and taken from where they are there already. Who
            calls removes it when the outcome is written.

    Raises DataError: labels of model and data differ, a label id out of range, nothing to score, no rim or edge where
    bands are asked for; UsageError: widths; NotFiniteError: the network gives NaN; BusyError: another process writes `partial`.
    """
    order, widths = _indices(split, indices), tuple(sorted(set(widths)))
    if not widths or min(widths) < 1:
        raise UsageError(f"widths {', '.join(map(str, widths))}: expected at least one, whole numbers of pixels from 1")
    kind: Boundary | None = ("trimap" if split.labels.rim else "transition") if boundary == "auto" else boundary
    _check(predictor, split, kind)
    counting = Counting(predictor, split, kind, widths, loss, tuple(measures))
    rank, world = ranks()

    def mine() -> list[ImageScore]:
        share, shown = order[rank::world], what if rank == 0 else None
        return _resumed(counting, share, shown, partial, rank) if partial else list(counting.scores(share, shown, len(share)))

    scores = gather_scores(mine, predictor.device)
    if kind and not any(score.outlined for score in scores):
        if boundary == "auto":
            kind = None
        else:
            outline = "rim" if boundary == "trimap" else "edge"
            raise DataError(f"{split.name}: found no {outline} in any label; use --boundary none")
    keys = [split.key(score.index) for score in scores]
    return Evaluation(split.name, keys, split.labels, scores, kind, widths, loss, predictor.settings, predictor.info, tuple(measures))


def _resumed(counting: Counting, share: Sequence[int], what: str | None, partial: Path, rank: int) -> list[ImageScore]:
    """Scores of `share`: those that `partial` has, and the others, which it then gets."""
    name, stamps = counting.split.name, {index: counting.stamp(index) for index in share}
    with open_partial(partial, counting.key(), rank) as kept:
        scores = [replace(kept.found[stamp], index=index) for index, stamp in stamps.items() if stamp in kept.found]
        done = {score.index for score in scores}
        if done:
            log.info("%s: %d of %d pictures were counted before; going on", name, len(done), len(share))
        try:
            for score in counting.scores([index for index in share if index not in done], what, len(share)):
                kept.add(stamps[score.index], score)
                scores.append(score)
        except (KeyboardInterrupt, Terminated):
            log.info("%s: %d of %d pictures are counted; the same command goes on", name, len(scores), len(share))
            raise
    return sorted(scores, key=lambda score: score.index)


def _indices(split: Split, indices: Sequence[int] | None) -> Sequence[int]:
    order = range(len(split)) if indices is None else sorted(set(indices))
    if not order:
        raise DataError(f"{split.name}: found no picture to score, expected at least one")
    return order


def _check(predictor: BasePredictor, split: Split, boundary: Boundary | None) -> None:
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
