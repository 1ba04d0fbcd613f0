"""Pictures, truth and what several models make of them, side by side (the paper's Fig. 7 and 8)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seenet.core.errors import DataError, UsageError
from seenet.core.images import read_image
from seenet.core.progress import track
from seenet.data import Split, open_split
from seenet.data.check.scan import check_split
from seenet.data.split import FileSplit
from seenet.evaluation.confusion import score_image
from seenet.evaluation.evaluator import evaluate
from seenet.evaluation.run import data_settings
from seenet.experiments.drawing import Panel, check_png, class_legend, model_names, panel_grid, write_figure
from seenet.model.files import find_model, read_options
from seenet.prediction.base import BasePredictor
from seenet.prediction.colours import colourize
from seenet.prediction.inputs import find_pictures, output_names
from seenet.prediction.loading import load


@dataclass(frozen=True)
class Row:
    """A picture (H x W x 3 uint8) with the models' masks; `truth` and `side` (best, worst) where it is from a split."""

    name: str
    image: np.ndarray
    masks: list[np.ndarray]
    truth: np.ndarray | None = None
    side: str = ""


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
    """Draw the last model's `count` best and `count` worst pictures of a split, or `images` without truth, into the PNG `out`.

    Data is found as `evaluation.run.run_evaluation` does, of the first model's run where no recipe is given. A picture is ranked by
    its own mIoU (docs/metrics.md).

    Raises UsageError: settings, `images` with data, models of different classes; DataError: no such model, data or picture, `out` there
    already (without `overwrite`).
    """
    if not models:
        raise UsageError("found no model; expected a run folder, a .safetensors file or a bundled name")
    if count < 1:
        raise UsageError(f"--count {count}: expected at least 1")
    if images and (recipe or overrides or split):
        raise UsageError("--images: pictures of your own, without --recipe, settings or --split; leave one of them out")
    check_png(out, overwrite=overwrite)
    files = [find_model(model) for model in models]
    opened = None if images else _open(files[0], recipe, list(overrides), split)
    predictors = [load(file, device, factory=factory if read_options(file).get("factory") else None) for file in files]
    _check_classes(predictors, files)
    rows = _own_rows(predictors, images, out) if opened is None else _split_rows(predictors, opened, count)
    write_figure(out, panels_figure(rows, model_names(files, models), predictors[-1], opened.name if opened else None))


def _open(model: Path, recipe: str | None, overrides: list[str], split: str | None) -> Split:
    settings = data_settings(model, recipe, overrides)
    opened = open_split(settings, split or settings.val or "val")
    if isinstance(opened, FileSplit):
        check_split(opened)
    return opened


def _check_classes(predictors: Sequence[BasePredictor], files: Sequence[Path]) -> None:
    for predictor, file in zip(predictors, files, strict=True):
        if predictor.labels.classes != predictors[-1].labels.classes:
            raise UsageError(
                f"{file}: knows other classes ({predictor.labels.name}) than {files[-1]} ({predictors[-1].labels.name}); "
                "models of one figure need the same"
            )


def _own_rows(predictors: Sequence[BasePredictor], images: Sequence[str], out: Path) -> list[Row]:
    found = find_pictures(images, out)
    shown = Counter(name for _, name in found)
    # Of two folders they may be called the same.
    names = output_names([(path, name if shown[name] == 1 else str(path)) for path, name in found])
    pictures = [(name, read_image(path)) for name, (path, _) in zip(names, found, strict=True)]
    return [Row(name, image, [p.mask(image) for p in predictors]) for name, image in track(pictures, "panels", len(pictures))]


def _split_rows(predictors: Sequence[BasePredictor], split: Split, count: int) -> list[Row]:
    ranking = evaluate(predictors[-1], split, what=f"panels {split.name}")
    best = ranking.best(count)
    worst = [score for score in ranking.worst(count) if score not in best]
    if not best:
        raise DataError(f"{split.name}: nothing is scored, every pixel of its labels is ignored; use another split")
    rows = []
    for side, scores in (("best", best), ("worst", worst[::-1])):
        for score in scores:
            image, truth = split.read(score.index)
            rows.append(Row(split.key(score.index), image, [p.mask(image, truth.shape[:2]) for p in predictors], truth, side))
    return rows


def panels_figure(rows: Sequence[Row], names: Sequence[str], predictor: BasePredictor, split: str | None) -> bytes:
    """PNG: a row a picture, a column a model; below a prediction its mIoU on that picture."""
    labels = predictor.labels
    grid = []
    for place, row in enumerate(rows):
        cells = [("picture", row.image, row.name)]
        if row.truth is not None:
            cells.append(("ground truth", colourize(row.truth, labels), ""))
        cells += [(name, colourize(mask, labels), _note(row.truth, mask, predictor)) for name, mask in zip(names, row.masks, strict=True)]
        sides = [row.side] + [""] * (len(cells) - 1)
        grid.append(
            [Panel(picture, title if place == 0 else "", note, side) for (title, picture, note), side in zip(cells, sides, strict=True)]
        )
    shown = [mask for row in rows for mask in (*row.masks, *([] if row.truth is None else [row.truth]))]
    caption = (
        "" if split is None else f"{split}: pictures with the highest and the lowest mIoU of {names[-1]}, over each picture's own classes."
    )
    return panel_grid(grid, caption, class_legend(shown, labels))


def _note(truth: np.ndarray | None, mask: np.ndarray, predictor: BasePredictor) -> str:
    if truth is None:
        return ""
    labels = predictor.labels
    miou = score_image(0, truth, mask, labels.num_classes, labels.ignore).miou(labels.num_classes)
    return "mIoU: nothing is scored" if miou is None else f"mIoU {100 * miou:.1f} %"
