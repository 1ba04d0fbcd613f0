"""Evaluate a model and write the results into a folder, as `seenet eval` does."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from seenet.core.errors import UsageError
from seenet.core.files import (
    check_free,
    find_model,
    remove_leftovers,
    replacing,
    short,
    write_text,
    writing_to,
)
from seenet.core.recipe_files import load_recipe, parse_recipe, refuse_code
from seenet.core.settings import DataSettings, Recipe
from seenet.data import open_split
from seenet.data.check.scan import check_split
from seenet.data.cityscapes import CITYSCAPES19
from seenet.data.split import FileSplit, Split
from seenet.distributed import init_process_group
from seenet.evaluation.evaluator import Boundary, Evaluation, evaluate
from seenet.evaluation.metrics import open_metrics
from seenet.evaluation.metrics.boundaries import WIDTHS
from seenet.evaluation.pictures import confusion_figure, panel
from seenet.prediction.base import BasePredictor
from seenet.prediction.loading import PredictOptions, open_predictor

RESULT = "result.json"
FIGURE = "confusion.png"
PARTIAL = "partial"
"""Folder of the score journal; removed once the result file is written."""
SHOWN = 4
"""Number of worst images, and of best images, that are drawn."""

# A recipe must have these sections; an evaluation does not use them.
UNUSED_SECTIONS = "transforms: {crop: 1}\ntraining: {steps: 1, batch: 1}\n"


@dataclass(frozen=True)
class EvalReport:
    """Evaluation, content of its result file, and output folder; `first` on rank 0 only."""

    evaluation: Evaluation
    result: dict[str, Any]
    out: Path
    first: bool = True


def run_evaluation(
    model: str | Path,
    recipe: str | Path | Recipe | None = None,
    overrides: Sequence[str] = (),
    *,
    split: str | None = None,
    boundary: Boundary | Literal["auto"] | None = "auto",
    widths: Sequence[int] = WIDTHS,
    boundary_iou: bool = False,
    conventions: bool = False,
    metrics: Sequence[str] = (),
    mean_over: Sequence[str] | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    command: str | None = None,
    **options: Any,
) -> EvalReport:
    """Score a model on a split; write result.json, confusion.png and images/{worst,best}-N-KEY.jpg.

    The counts of an interrupted call are kept in OUT/partial, and the same call continues from
    them. With the user's own code (`factory`, or `package.module:callable` as a metric or
    `data.kind`) none are kept, since it may change between two calls. Under torchrun the processes
    share the images, and rank 0 writes.

    Args:
        model: run folder, .safetensors file, exported bundle or bundled name.
        recipe: recipe whose data is used; None: the recipe.yaml beside the model, else the
            overrides alone (`data.kind=camvid`, `data.root=PATH`).
        overrides: `key=value` settings of the recipe.
        split: name of the split in the data set; None: the recipe's `data.val`, or `val`.
        boundary, widths: boundary bands, as `evaluate`.
        boundary_iou, conventions: add the metric of this name.
        metrics: further metrics by name or `package.module:callable`
            (`seenet.evaluation.metrics`). Data with Cityscapes' labels always gets `cityscapes`.
        mean_over: names of classes for one more mIoU.
        out: output folder; None: as `default_out`.
        overwrite: replace the results of an earlier call.
        command: command line to record in the result file.
        options: fields of `PredictOptions`.

    Raises:
        DataError: no such model or data, labels that differ, or results exist (without
            `overwrite`).
        UsageError: wrong settings.
        BusyError: another process evaluates into OUT.
        NotFiniteError: the network returns NaN.
    """
    path, predict_options = find_model(model), PredictOptions(**options)
    settings = data_settings(path, recipe, list(overrides))
    which = split or settings.val or "val"
    folder = out or default_out(path, which)
    # Figures beside a journal are from the same evaluation, which was killed before its result.
    interrupted = (folder / PARTIAL).is_dir()
    figures = [] if interrupted else [folder / FIGURE, *_drawn_images(folder)]
    check_free([folder / RESULT, *figures], overwrite=overwrite)
    opened = open_split(settings, which)
    classes = None if mean_over is None else opened.labels.indices(mean_over)
    by_flag = {
        "cityscapes": opened.labels == CITYSCAPES19,
        "boundary_iou": boundary_iou,
        "conventions": conventions,
    }
    chosen = [name for name, flag in by_flag.items() if flag]
    counted = open_metrics([*chosen, *metrics], opened)
    # The user's own code may change between two calls, so its counts are not kept.
    own_code = predict_options.factory or any(":" in name for name in (settings.kind, *metrics))
    with init_process_group(predict_options.device) as group:
        # Wrong labels are found before the model is loaded.
        if isinstance(opened, FileSplit):
            check_split(opened)
        predictor = open_predictor(path, predict_options)
        evaluation = evaluate(
            predictor,
            opened,
            boundary=boundary,
            widths=widths,
            loss=True,
            metrics=counted,
            what=f"eval {opened.name}",
            journal=None if own_code else folder / PARTIAL,
        )
    result = evaluation.result(command=command, mean_over=classes)
    if group.first:
        with writing_to(folder, "make room and run it again; the counts are kept"):
            _write(folder, predictor, opened, evaluation, result)
    return EvalReport(evaluation, result, folder, first=group.first)


def _write(
    folder: Path,
    predictor: BasePredictor,
    split: Split,
    evaluation: Evaluation,
    result: dict[str, Any],
) -> None:
    remove_leftovers([folder / FIGURE, folder / RESULT])
    panels = _panels(predictor, split, evaluation)
    with replacing(folder / FIGURE) as temporary:
        temporary.write_bytes(confusion_figure(evaluation.matrix, evaluation.labels))
    (folder / "images").mkdir(exist_ok=True)
    for path in _drawn_images(folder):
        path.unlink()
    for name, image in panels.items():
        with replacing(folder / "images" / f"{name}.jpg") as temporary:
            image.save(temporary, format="jpeg", quality=88)
    # Written last: a result file means that everything else is complete.
    write_text(folder / RESULT, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)


def _panels(
    predictor: BasePredictor, split: Split, evaluation: Evaluation
) -> dict[str, Image.Image]:
    """Predict the worst and the best images again and draw a panel of each, by file stem."""
    panels = {}
    for kind, scores in (("worst", evaluation.worst(SHOWN)), ("best", evaluation.best(SHOWN))):
        for place, score in enumerate(scores, start=1):
            image, truth = split.read(score.index)
            key = short(re.sub(r"[^\w.-]+", "_", split.key(score.index)))
            panels[f"{kind}-{place}-{key}"] = panel(
                image, truth, predictor.mask(image, truth.shape[:2]), split.labels
            )
    return panels


def _drawn_images(folder: Path) -> list[Path]:
    """List the panels of an earlier evaluation."""
    paths = sorted((folder / "images").glob("*.jpg"))
    return [path for path in paths if re.match(r"(worst|best)-\d+-", path.name)]


def data_settings(
    model: Path, recipe: str | Path | Recipe | None, overrides: list[str]
) -> DataSettings:
    """Return the data of `recipe`, or of the model's run, or of the overrides alone.

    Raises:
        UsageError: wrong settings; or the recipe of the model's run names a data set that is code,
            and no override repeats it.
    """
    beside = model.parent / "recipe.yaml"
    if recipe is None and beside.is_file():
        found = load_recipe(beside, overrides)
        refuse_code(found, overrides, beside, ["data.kind"])
        return found.data
    if recipe is not None:
        return load_recipe(recipe, overrides).data
    if not any(override.startswith("data.") for override in overrides):
        raise UsageError(
            f"{model}: belongs to no run whose recipe says which data; "
            "give a recipe, or data.kind=camvid data.root=PATH"
        )
    return parse_recipe(UNUSED_SECTIONS, "command line", overrides).data


def default_out(
    model: Path, split: str, inside: str = "eval", elsewhere: str = "evaluations"
) -> Path:
    """Return RUN/`inside`/SPLIT for the model of a run, else `elsewhere`/MODEL-SPLIT.

    Another model of the run, such as model-last.safetensors, gets RUN/`inside`/MODEL-SPLIT. MODEL
    is the stem of the file; a split given as a path counts by its stem.
    """
    name = Path(split).stem
    if (model.parent / "recipe.yaml").is_file():
        return model.parent / inside / (name if model.stem == "model" else f"{model.stem}-{name}")
    return Path(elsewhere) / f"{model.stem}-{name}"
