"""The report of a run: one static HTML page."""

import json
import logging
import platform
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import seenet
from seenet.core.errors import DataError, UsageError
from seenet.core.labels import LabelSet
from seenet.core.recipe_files import dump, load_recipe
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.evaluation.pictures import ERROR_COLOURS, MOST_NAMED, confusion_figure
from seenet.evaluation.run import data_settings
from seenet.model.files import SavedModel, load_model
from seenet.prediction.base import BasePredictor
from seenet.prediction.loading import load
from seenet.prediction.predictor import Predictor
from seenet.report.figures import curves, points
from seenet.report.gallery import Group, image_groups
from seenet.report.html import png_uri, render
from seenet.training.logging import read_metrics
from seenet.training.run import PACKAGES, stage_folders

log = logging.getLogger("seenet")

CONFUSIONS = 6
"""Number of most frequent confusions that the page lists."""


def write_report(
    run: Path,
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
    images: int = 6,
    factory: str | None = None,
    model: str | Path | None = None,
) -> Path:
    """Write RUN/report/index.html, one file that loads nothing else, and return its path.

    The scores are those of RUN/val.json; the images are predicted again, in float32. A run without
    validation shows images of the train split. Where the data cannot be opened the page says why
    and has no images.

    Args:
        overrides: `key=value` for the data, such as `data.root=PATH`.
        images: number of worst, best and sample images each.
        factory: name of the model's factory, for a network of `model.factory`.
        model: model that predicts the images instead of the run's own, such as its exported bundle.

    Raises:
        DataError: no such run, or its model or val.json is missing or damaged.
        UsageError: wrong device, a run with stages, or a data set that is code, which no override
            repeats.
    """
    if not (run / "recipe.yaml").is_file():
        raise DataError(
            f"{run}: found no recipe.yaml, expected a run folder (seenet train ... --out {run})"
        )
    recipe = load_recipe(run / "recipe.yaml")
    if recipe.stages:
        stages = ", ".join(map(str, stage_folders(run, recipe)))
        raise UsageError(f"{run}: a run with stages; give one of them: {stages}")
    data = data_settings(run / "model.safetensors", None, list(overrides))
    saved = load_model(run, factory=factory)
    result = read_result(run / "val.json", saved.labels) if recipe.data.val else None
    entries = read_metrics(run / "metrics.jsonl")
    predictor = _predictor(saved, model, device)
    groups, missing = _image_groups(data, predictor, result, images)
    path, name = run / "report" / "index.html", run.resolve().name or "run"
    render(
        path,
        "page.html.j2",
        title=f"{name}: SeENet report",
        name=name,
        run=str(run),
        recipe=recipe,
        saved=saved,
        labels=saved.labels,
        parameters=sum(parameter.numel() for parameter in saved.model.parameters()),
        megabytes=saved.path.stat().st_size / 1e6,
        steps=max((entry["step"] for entry in entries), default=0),
        curves=curves(entries),
        speed=_speed(entries),
        result=result,
        **(confusion_values(result, saved.labels) if result else {}),
        groups=groups,
        missing=missing,
        predicted_with=_describe(predictor) if model else "the run's model",
        error_colours=ERROR_COLOURS,
        recipe_text=dump(recipe),
        versions=_versions(saved),
        quote=shlex.quote,
    )
    return path


def read_result(path: Path, labels: LabelSet) -> dict[str, Any] | None:
    """Read val.json; None where training has not validated yet.

    Raises:
        DataError: the file is damaged or does not belong to the model.
    """
    if not path.is_file():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names, shape = [entry["name"] for entry in result["classes"]], np.shape(result["confusion"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a result file ({type(error).__name__}); validate again, or remove it"
        ) from None
    if names != list(labels.classes) or shape != (len(names), len(names)):
        raise DataError(
            f"{path}: its {len(names)} classes are not the model's {labels.num_classes}; "
            "it belongs to another run"
        )
    return result


def confusion_values(result: dict[str, Any], labels: LabelSet) -> dict[str, Any]:
    """Return the confusion matrix for the template.

    Up to `MOST_NAMED` classes it is a table, above that a figure.
    """
    matrix = np.array(result["confusion"], np.int64)
    rows = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
    large = labels.num_classes > MOST_NAMED
    return {
        "confusions": frequent_confusions(shares, labels),
        "matrix": [] if large else shares.tolist(),
        "figure": png_uri(confusion_figure(matrix, labels)) if large else "",
    }


def frequent_confusions(shares: np.ndarray, labels: LabelSet) -> list[tuple[str, str, float]]:
    """List (truth, prediction, share of the truth's pixels) of the most frequent confusions."""
    wrong = shares * (1 - np.eye(labels.num_classes))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    return [
        (labels.classes[t], labels.classes[p], float(wrong[t, p]))
        for t, p in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[t, p] >= 0.0005
    ]


def _predictor(saved: SavedModel, model: str | Path | None, device: str) -> BasePredictor:
    if model is None:
        info = {"file": str(saved.path), "sha256": saved.sha256}
        return Predictor(saved.model, saved.labels, device=device, info=info)
    predictor = load(model, device)
    if predictor.labels.classes != saved.labels.classes:
        raise DataError(
            f"{model}: its {predictor.labels.num_classes} classes are not those of {saved.path}; "
            "it belongs to another run"
        )
    return predictor


def _describe(predictor: BasePredictor) -> str:
    file, runtime = Path(str(predictor.info["file"])).name, predictor.settings.get("runtime")
    sha256 = str(predictor.info["sha256"])[:12]
    return f"{file} (SHA-256 {sha256}...{f', in {runtime}' if runtime else ''})"


def _image_groups(
    data: DataSettings, predictor: BasePredictor, result: dict[str, Any] | None, count: int
) -> tuple[list[Group], str]:
    """Return the image groups, or none and the reason where the data cannot be opened."""
    try:
        split = open_split(data, data.val or data.train)
    except DataError as error:
        log.warning("the report has no images: %s", error)
        return [], str(error)
    return image_groups(predictor, split, result, count), ""


def _speed(entries: list[dict[str, Any]]) -> str:
    speeds = [value for _, value in points(entries, "images_per_s")]
    memory = [value for _, value in points(entries, "memory_mib")]
    if not speeds:
        return ""
    most = f", at most {max(memory):,.0f} MiB of memory" if memory else ""
    return f"Median speed {np.median(speeds):.1f} images per second{most}."


def _versions(saved: SavedModel) -> list[tuple[str, str]]:
    """List the versions of training, from the model file, and those of this page that differ."""
    here = {
        "version": seenet.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
    shown = {key: "SeENet" if key == "version" else key for key in ("device", *here)}
    trained = [
        (f"{name}, training", str(saved.notes[key]))
        for key, name in shown.items()
        if key in saved.notes
    ]
    changed = [
        (f"{shown[key]}, this page", value)
        for key, value in here.items()
        if saved.notes.get(key) != value
    ]
    return [*trained, *changed]
