"""Pictures, their truth and the masks of several models side by side (Fig. 7 and 8)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seenet.core.errors import DataError, UsageError
from seenet.core.images import as_rgb
from seenet.core.labels import LabelSet
from seenet.core.progress import track
from seenet.data import Split, open_split
from seenet.data.check.scan import check_split
from seenet.data.split import FileSplit
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.run import data_settings
from seenet.experiments.drawing import (
    Panel,
    check_png,
    class_legend,
    miou_note,
    model_names,
    panel_grid,
    write_figure,
)
from seenet.model.files import find_model, read_options
from seenet.prediction.base import BasePredictor
from seenet.prediction.loading import load
from seenet.prediction.pictures import find_pictures, output_names
from seenet.prediction.result import colourize


@dataclass(frozen=True)
class Row:
    """Picture (H x W x 3 uint8) with the models' masks, and its truth where it is from a split."""

    name: str
    image: np.ndarray
    masks: list[np.ndarray]
    truth: np.ndarray | None = None
    side: str = ""
    """`best` or `worst` of a split."""


def write_panels(
    models: Sequence[str],
    out: Path,
    *,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    split: str | None = None,
    count: int = 3,
    images: Sequence[str] = (),
    factory: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Draw the last model's best and worst pictures of a split, or `images`, into the PNG `out`.

    Args:
        models: run folders, .safetensors files or bundled names, a column each.
        out: the figure.
        recipe, overrides, split: which data, as for `run_evaluation`, with the first model's run.
        count: number of the best pictures by their own mIoU (docs/metrics.md), and of the worst.
        images: files, folders and patterns without truth, instead of a split.
        factory: of networks of `model.factory`, their name again.
        device: auto, cpu, cuda or mps.
        overwrite: replace the figure.

    Raises:
        UsageError: wrong settings, `images` with a split, or models of different classes.
        DataError: no such model, data or picture, or `out` exists.
    """
    if not models:
        raise UsageError(
            "found no model; expected a run folder, a .safetensors file or a bundled name"
        )
    if count < 1:
        raise UsageError(f"--count {count}: expected at least 1")
    if images and (recipe or overrides or split):
        raise UsageError(
            "--images: pictures of your own, without --recipe, settings or --split; "
            "leave one of them out"
        )
    check_png(out, overwrite=overwrite)
    files = [find_model(model) for model in models]
    opened = None if images else _open_split(files[0], recipe, list(overrides), split)
    predictors = [
        load(file, device, factory=factory if read_options(file).get("factory") else None)
        for file in files
    ]
    labels = predictors[-1].labels
    for predictor, file in zip(predictors, files, strict=True):
        if predictor.labels.classes != labels.classes:
            raise UsageError(
                f"{file}: knows other classes ({predictor.labels.name}) than {files[-1]} "
                f"({labels.name}); models of one figure need the same"
            )
    if opened is None:
        rows, split_name = _picture_rows(predictors, images, out), None
    else:
        rows, split_name = _split_rows(predictors, opened, count), opened.name
    write_figure(out, panels_figure(rows, model_names(files, models), labels, split_name))


def _open_split(model: Path, recipe: str | None, overrides: list[str], split: str | None) -> Split:
    settings = data_settings(model, recipe, overrides)
    opened = open_split(settings, split or settings.val or "val")
    if isinstance(opened, FileSplit):
        check_split(opened)
    return opened


def _picture_rows(
    predictors: Sequence[BasePredictor], images: Sequence[str], out: Path
) -> list[Row]:
    found = find_pictures(images, out)
    counts = Counter(name for _, name in found)
    # Pictures of two folders may have one name.
    names = output_names([(path, name if counts[name] == 1 else str(path)) for path, name in found])
    rows = []
    for name, (path, _) in track(list(zip(names, found, strict=True)), "panels", len(found)):
        # Once for all models that read the same channels and range of values.
        read = {reader: reader(path) for reader in {one.reader for one in predictors}}
        masks = [predictor.mask(read[predictor.reader]) for predictor in predictors]
        rows.append(Row(name, read[predictors[-1].reader], masks))
    return rows


def _split_rows(predictors: Sequence[BasePredictor], split: Split, count: int) -> list[Row]:
    evaluation = evaluate(predictors[-1], split, what=f"panels {split.name}")
    best = evaluation.best(count)
    worst = [score for score in evaluation.worst(count)[::-1] if score not in best]
    if not best:
        raise DataError(
            f"{split.name}: nothing is scored, every pixel of its labels is ignored; "
            "use another split"
        )
    rows = []
    for side, score in [*(("best", s) for s in best), *(("worst", s) for s in worst)]:
        image, truth = split.read(score.index)
        masks = [predictor.mask(image, truth.shape[:2]) for predictor in predictors]
        rows.append(Row(split.key(score.index), image, masks, truth, side))
    return rows


def panels_figure(
    rows: Sequence[Row], names: Sequence[str], labels: LabelSet, split: str | None
) -> bytes:
    """Draw a row for each picture, a column for each model and its mIoU below; return a PNG."""
    grid: list[tuple[str, list[Panel]]] = []
    for row in rows:
        panels = [Panel(as_rgb(row.image), "picture", row.name)]
        if row.truth is not None:
            panels.append(Panel(colourize(row.truth, labels), "ground truth"))
        for name, mask in zip(names, row.masks, strict=True):
            panels.append(Panel(colourize(mask, labels), name, miou_note(row.truth, mask, labels)))
        # Titles stand above the first row alone.
        grid.append((row.side, [replace(panel, title="") for panel in panels] if grid else panels))
    masks = [mask for row in rows for mask in (row.truth, *row.masks)]
    caption = (
        f"{split}: pictures with the highest and the lowest mIoU of {names[-1]}, over each "
        "picture's own classes."
    )
    return panel_grid(grid, caption if split else "", class_legend(masks, labels))
