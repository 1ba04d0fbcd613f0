"""Evaluate a model into a folder: what `seenet eval` does."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.core.files import check_free, find_model, remove_leftovers, replacing, short, write_text
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
"""Folder of what is counted so far; gone once the result file is there."""
SHOWN = 4
"""Pictures shown of the worst, and of the best."""

# A recipe needs these two sections, of which evaluation uses nothing.
DATA_ALONE = "transforms: {crop: 1}\ntraining: {steps: 1, batch: 1}\n"


@dataclass(frozen=True)
class EvalReport:
    """The evaluation, its result file's content, and the folder it was written to, by the first process of several."""

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
    """Score a model on a split and write OUT/result.json, OUT/confusion.png and OUT/images/{worst,best}-N-KEY.jpg.

    What an interrupted call has counted lies in OUT/partial, and the same call goes on from there. Under torchrun the processes share
    the pictures.

    Args:
        model: run folder, .safetensors or bundled name.
        recipe: says which data; None: the recipe.yaml beside the model, else the overrides alone (`data.kind=camvid`,
            `data.root=PATH`).
        overrides: `key=value` on the recipe.
        split: the data set's own name of it; None: the recipe's `data.val`, or `val`.
        boundary: which bands, as `evaluate`, of these `widths` in pixels.
        boundary_iou, conventions: short for these two `metrics`.
        metrics: also these, by name or `package.module:callable` (`seenet.evaluation.metrics`); Cityscapes' own comes by itself.
        mean_over: names of classes over which one more mIoU is taken.
        command: quoted by the result file.
        out: None: `eval/SPLIT` in the model's run, or `evaluations/MODEL-SPLIT`.
        options: those of `PredictOptions`, by name.

    Raises:
        DataError: no such model or data, labels that differ, results there already (without `overwrite`).
        UsageError: settings.
        BusyError: another process evaluates into OUT.
    """
    path, chosen = find_model(model), PredictOptions(**options)
    settings = data_settings(path, recipe, list(overrides))
    which = split or settings.val or "val"
    folder = out or default_out(path, which)
    # Beside counts of an evaluation under way its pictures are its own: it was killed before its result file was there.
    under_way = (folder / PARTIAL).is_dir()
    check_free(
        [folder / RESULT, *([] if under_way else [folder / FIGURE, *_shown(folder)])],
        overwrite=overwrite,
    )
    opened = open_split(settings, which)
    classes = None if mean_over is None else opened.labels.indices(mean_over)
    short_forms = {
        "cityscapes": opened.labels == CITYSCAPES19,
        "boundary_iou": boundary_iou,
        "conventions": conventions,
    }
    measured = open_metrics(
        [*(name for name, asked in short_forms.items() if asked), *metrics], opened
    )
    # The user's own code may change in between, which no hash of a model would show.
    own = chosen.factory or any(":" in name for name in (settings.kind, *metrics))
    journal = None if own else folder / PARTIAL
    with init_process_group(chosen.device) as group:
        _check_labels(opened, boundary)
        predictor = open_predictor(path, chosen)
        evaluation = evaluate(
            predictor,
            opened,
            boundary=boundary,
            widths=widths,
            loss=True,
            metrics=measured,
            what=f"eval {opened.name}",
            journal=journal,
        )
    result = evaluation.result(command=command, mean_over=classes)
    if group.first:
        try:
            _write(folder, predictor, opened, evaluation, result)
        except OSError as error:
            what = f"{folder}: cannot be written ({error.strerror or error})"
            raise DataError(
                f"{what}; make room and run it again: what is counted is kept"
            ) from None
    return EvalReport(evaluation, result, folder, first=group.first)


def _check_labels(split: Split, boundary: Boundary | Literal["auto"] | None) -> None:
    """Raise DataError where a label is wrong, or nothing is ignored that could be the rim for `boundary`."""
    if not isinstance(split, FileSplit):
        return
    held = {label for counts in check_split(split) for label in counts}
    # `evaluate` says the same, but after the last picture.
    if boundary == "trimap" and split.labels.rim and split.labels.ignore not in held:
        raise DataError(
            f"{split.name}: no pixel of {len(split)} masks is ignored ({split.labels.ignore}), so that there is no rim for "
            "--boundary trimap; use --boundary transition or none"
        )


def _write(
    folder: Path,
    predictor: BasePredictor,
    split: Split,
    evaluation: Evaluation,
    result: dict[str, Any],
) -> None:
    remove_leftovers([folder / FIGURE, folder / RESULT])
    shown = _panels(predictor, split, evaluation)
    with replacing(folder / FIGURE) as temporary:
        temporary.write_bytes(confusion_figure(evaluation.matrix, evaluation.labels))
    (folder / "images").mkdir(exist_ok=True)
    for stale in _shown(folder):
        stale.unlink()
    for name, image in shown.items():
        with replacing(folder / "images" / f"{name}.jpg") as temporary:
            image.save(temporary, format="jpeg", quality=88)
    # Last, so that a result file means that all of it is there.
    write_text(folder / RESULT, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)


def _shown(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted((folder / "images").glob("*.jpg"))
        if re.match(r"(worst|best)-\d+-", path.name)
    ]


def data_settings(
    model: Path, recipe: str | Path | Recipe | None, overrides: list[str]
) -> DataSettings:
    """Return the data to score on: of the recipe if given, else of the model's run, else of the
    overrides.

    Raises:
        UsageError: settings; or a data set that is code, which the recipe of the model's run names
            but neither a recipe that is given nor an override.
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
            f"{model}: belongs to no run whose recipe says which data; give a recipe, or data.kind=camvid data.root=PATH"
        )
    return parse_recipe(DATA_ALONE, "command line", overrides).data


def default_out(
    model: Path, split: str, inside: str = "eval", elsewhere: str = "evaluations"
) -> Path:
    """Return `eval/SPLIT` in the model's run, or `evaluations/MODEL-SPLIT` where it belongs to none; a split given as a path
    by its stem. Other results than an evaluation's say where they go.
    """
    name = Path(split).stem
    if (model.parent / "recipe.yaml").is_file():
        return model.parent / inside / (name if model.stem == "model" else f"{model.stem}-{name}")
    return Path(elsewhere) / f"{model.stem}-{name}"


def _panels(
    predictor: BasePredictor, split: Split, evaluation: Evaluation
) -> dict[str, Image.Image]:
    chosen = {"worst": evaluation.worst(SHOWN), "best": evaluation.best(SHOWN)}
    panels = {}
    for kind, scores in chosen.items():
        for place, score in enumerate(scores, start=1):
            image, truth = split.read(score.index)
            drawn = panel(image, truth, predictor.mask(image, truth.shape[:2]), split.labels)
            key = short(re.sub(r"[^\w.-]+", "_", split.key(score.index)))
            panels[f"{kind}-{place}-{key}"] = drawn
    return panels
