"""The report of a run: one static page."""

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
from seenet.core.settings import DataSettings, Recipe
from seenet.data import Split, open_split
from seenet.evaluation.pictures import ERROR_COLOURS, MOST_NAMED, confusion_figure
from seenet.evaluation.run import data_settings
from seenet.model.files import SavedModel, load_model
from seenet.prediction.base import BasePredictor
from seenet.prediction.loading import load
from seenet.prediction.predictor import Predictor
from seenet.report.figures import curves, points
from seenet.report.gallery import Group, picture_groups
from seenet.report.html import number, percent, png_uri, render
from seenet.training.logging import read_metrics
from seenet.training.run import PACKAGES, stage_folders

log = logging.getLogger("seenet")

PAIRS = 6
"""Confusions listed in words."""


def write_report(
    run: Path,
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
    images: int = 6,
    factory: str | None = None,
    model: str | Path | None = None,
) -> Path:
    """Write RUN/report/index.html and return its path: one file with pictures, curves, tables and settings, that fetches nothing.

    Numbers are those of RUN/val.json; `images` worst, best and sample pictures each are predicted anew, in float32. Without a
    validation the pictures are of the train split, said so. Where the data is not on this machine the page has no pictures and says why.
    `model`: what the pictures are predicted with in place of the run's own, such as a bundle exported from it.
    `overrides`: `key=value` that say where the pictures are.

    Raises DataError where there is no run, or its model or val.json is missing or damaged;
    UsageError: device, settings, or a data set that is code, which no override names.
    """
    if not (run / "recipe.yaml").is_file():
        raise DataError(
            f"{run}: no recipe.yaml, expected a run folder (seenet train ... --out {run})"
        )
    recipe = load_recipe(run / "recipe.yaml")
    if recipe.stages:
        raise UsageError(
            f"{run}: a run with stages; give one of them: {', '.join(map(str, stage_folders(run, recipe)))}"
        )
    data = data_settings(run / "model.safetensors", None, list(overrides))
    saved = load_model(run, factory=factory)
    result = read_result(run / "val.json", saved.labels) if recipe.data.val else None
    entries = read_metrics(run / "metrics.jsonl")
    predictor = _predictor(saved, model, device)
    groups, missing = _pictures(data, predictor, result, images)
    path = run / "report" / "index.html"
    render(
        path, "page.html.j2", title=f"{_name(run)}: SeENet report", name=_name(run), recipe=recipe, labels=saved.labels, result=result,
        figure=confusion_image(result, saved.labels), numbers=headline_scores(result), about=_about(recipe, saved, result),
        curves=curves(entries), speed=_speed(entries),
        classes=class_rows(result, saved.labels), matrix=confusion_rows(result, saved.labels), pairs=frequent_confusions(result),
        groups=groups, missing=missing, by=_by(predictor) if model else "the run's model", error_colours=ERROR_COLOURS,
        card=_card(recipe, saved, result, entries), recipe_text=dump(recipe),
        versions=_versions(saved), commands=_commands(run, recipe, result),
    )  # fmt: skip
    return path


def read_result(path: Path, labels: LabelSet) -> dict[str, Any] | None:
    """Read val.json; None where training has not validated yet. DataError where it does not belong to the model."""
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        names, shape = [entry["name"] for entry in result["classes"]], np.shape(result["confusion"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a result file ({type(error).__name__}); validate again, or remove it"
        ) from None
    if names != list(labels.classes) or shape != (len(names), len(names)):
        raise DataError(
            f"{path}: {len(names)} classes that are not the model's {labels.num_classes}; it belongs to another run"
        )
    return dict(result)


def headline_scores(result: dict[str, Any] | None) -> list[tuple[str, str]]:
    """List (number, what it is) for the head of the page; empty without a validation."""
    if result is None:
        return []
    loss = result.get("loss")
    return [
        (
            percent(result["miou"], "none"),
            f"mIoU on {result['data']}/{result['split']}, {counted(result['images'], 'image')}",
        ),
        (percent(result["pixel_accuracy"], "none"), "pixel accuracy"),
        (percent(result["mean_class_accuracy"], "none"), "mean class accuracy"),
        (percent(result["frequency_weighted_iou"], "none"), "frequency-weighted IoU"),
        (f"{loss:.4f}" if loss is not None else "not measured", "cross entropy, nats a pixel"),
    ]


def class_rows(result: dict[str, Any] | None, labels: LabelSet) -> list[dict[str, Any]]:
    """List each class's scores as text, for the table."""
    if result is None:
        return []
    pixels = sum(entry["pixels"] for entry in result["classes"])
    rows = []
    for index, entry in enumerate(result["classes"]):
        absent = entry["iou"] is None
        # Without truth there is no accuracy, though the class is predicted: not "absent".
        rows.append({
            "name": entry["name"], "colour": labels.colours[index], "iou": percent(entry["iou"]), "width": 100 * (entry["iou"] or 0),
            "absent": absent, "accuracy": percent(entry["accuracy"], "absent" if absent else "no truth"), "dice": percent(entry["dice"]),
            "pixels": number(entry["pixels"]), "share": percent(entry["pixels"] / pixels if pixels else None, "none"),
        })  # fmt: skip
    return rows


def _shares(result: dict[str, Any]) -> np.ndarray:
    """Divide the confusion matrix by its rows: K x K in 0..1, NaN in rows without truth."""
    matrix = np.array(result["confusion"], np.int64)
    rows = matrix.sum(1, keepdims=True)
    shares: np.ndarray = np.divide(matrix, rows, out=np.full(matrix.shape, np.nan), where=rows > 0)
    return shares


def confusion_rows(
    result: dict[str, Any] | None, labels: LabelSet
) -> list[tuple[str, list[tuple[str, float]]]]:
    """List (class, (text, share) of each cell), where the classes are few enough for a table."""
    if result is None or labels.num_classes > MOST_NAMED:
        return []
    rows = []
    for name, shares in zip(labels.classes, _shares(result), strict=True):
        cells = [
            ("", 0.0)
            if np.isnan(s)
            else (f"{100 * s:.0f}" if s >= 0.005 else "", round(float(s), 3))
            for s in shares
        ]
        rows.append((name, cells))
    return rows


def confusion_image(result: dict[str, Any] | None, labels: LabelSet) -> str:
    """Draw the confusion matrix of many classes as a data URI; empty where `confusion_rows` makes a table of it."""
    if result is None or labels.num_classes <= MOST_NAMED:
        return ""
    return png_uri(confusion_figure(np.array(result["confusion"], np.int64), labels))


def frequent_confusions(result: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """List (truth, prediction, share of the truth's pixels) of the most frequent confusions."""
    if result is None:
        return []
    shares = np.nan_to_num(_shares(result))
    np.fill_diagonal(shares, 0)
    names = [entry["name"] for entry in result["classes"]]
    order = np.argsort(-shares, axis=None, kind="stable")[:PAIRS]
    found = [(int(place) // len(names), int(place) % len(names)) for place in order]
    return [
        (names[t], names[p], percent(float(shares[t, p])))
        for t, p in found
        if shares[t, p] >= 0.0005
    ]


def counted(count: int, what: str) -> str:
    """Say a number with its noun: `1 image`, `233 images`."""
    return f"{number(count)} {what}{'' if count == 1 else 's'}"


def _name(run: Path) -> str:
    return run.resolve().name or "run"


def _predictor(saved: SavedModel, model: str | Path | None, device: str) -> BasePredictor:
    if model is None:
        return Predictor(
            saved.model,
            saved.labels,
            device=device,
            info={"file": str(saved.path), "sha256": saved.sha256},
        )
    predictor = load(model, device)
    if predictor.labels.classes != saved.labels.classes:
        raise DataError(
            f"{model}: its {predictor.labels.num_classes} classes are not those of {saved.path}; it belongs to another run"
        )
    return predictor


def _by(predictor: BasePredictor) -> str:
    file, runtime = Path(str(predictor.info["file"])).name, predictor.settings.get("runtime")
    return f"{file} (SHA-256 {str(predictor.info['sha256'])[:12]}...{f', in {runtime}' if runtime else ''})"


def _pictures(
    data: DataSettings, predictor: BasePredictor, result: dict[str, Any] | None, count: int
) -> tuple[list[Group], str]:
    try:
        split: Split = open_split(data, data.val if data.val else data.train)
    except DataError as error:
        log.warning("the report has no pictures: %s", error)
        return [], str(error)
    return picture_groups(predictor, split, result, count), ""


def _about(recipe: Recipe, saved: SavedModel, result: dict[str, Any] | None) -> str:
    data = recipe.data
    trained = f"{data.kind}/{data.train}" + (
        f" without drive {data.hold_out}" if data.hold_out else ""
    )
    text = (
        f"A {_network(recipe)} that gives each pixel of a picture one of {saved.labels.num_classes} "
        f"classes, trained on {trained} for {counted(recipe.training.steps, 'step')} of {counted(recipe.training.batch, 'crop')}"
    )
    if "step" in saved.notes:
        text += f"; the weights are those of step {saved.notes['step']:,}"
    if result is None:
        return text + "."
    there = len(result["classes"]) - len(result["absent"])
    pooled = f"Scores are pooled over all pixels of {counted(result['images'], 'picture')}, by which the best step was chosen"
    return f"{text}. {pooled}; mIoU is the mean over {there} classes."


def _network(recipe: Recipe) -> str:
    model = recipe.model
    probe = f"probe {model.probe} in a " if model.probe else ""
    return (
        f"network of {model.factory}"
        if model.factory
        else f"{probe}{model.variant} network on {model.backbone}"
    )


def _stride(saved: SavedModel) -> str:
    """Name the output stride of the network as it was built: some peers have one of their own."""
    return (
        f"output stride {saved.model.options['output_stride']}, "
        if "output_stride" in saved.model.options
        else ""
    )


def _speed(entries: list[dict[str, Any]]) -> str:
    speeds, memory = (
        [value for _, value in points(entries, "images_per_s")],
        [value for _, value in points(entries, "memory_mib")],
    )
    if not speeds:
        return ""
    text = f"Median speed {np.median(speeds):.1f} images a second"
    return f"{text}, at most {max(memory):,.0f} MiB of memory." if memory else f"{text}."


def _card(
    recipe: Recipe, saved: SavedModel, result: dict[str, Any] | None, entries: list[dict[str, Any]]
) -> list[tuple[str, str]]:
    parameters = sum(parameter.numel() for parameter in saved.model.parameters())
    rows = [
        (
            "Model file",
            f"{saved.path.name}, {saved.path.stat().st_size / 1e6:.1f} MB, SHA-256 {saved.sha256}",
        ),
        (
            "Network",
            f"{_network(recipe)}, {_stride(saved)}{parameters:,} parameters",
        ),
        ("Started from", recipe.training.start_from or recipe.model.weights or "random weights"),
        (
            "Classes",
            f"{saved.labels.num_classes} ({saved.labels.name}), label {saved.labels.ignore} is not scored",
        ),
        (
            "Trained on",
            f"{recipe.data.kind}, split {recipe.data.train}; its terms of use are the data set's own",
        ),
    ]
    if entries:
        rows.append(
            (
                "Trained for",
                f"{max(entry['step'] for entry in entries):,} of {recipe.training.steps:,} steps, seed {recipe.seed}",
            )
        )
    if result is None:
        return [
            *rows,
            (
                "Scores",
                "none: not validated yet"
                if recipe.data.val
                else "none: this run has no validation split",
            ),
        ]
    absent = ", ".join(result["absent"]) or "none"
    scales = ", ".join(f"{scale:g}" for scale in result.get("scales", []))
    flip = "with" if result.get("flip") else "without"
    return [
        *rows,
        (
            "Chosen by",
            f"the best mIoU on {result['data']}/{result['split']}, so this score is a little flattering",
        ),
        (
            "Scored",
            f"scale {scales}, {flip} flip, {result.get('precision', 'unknown precision')}; {result['size_rule']}",
        ),
        ("Ignored", result["ignore_rule"]),
        ("Absent classes", f"{absent}; {result['absent_rule']}"),
        (
            "Limits",
            "measured on this split alone: other cameras, places, weather and light may do worse",
        ),
    ]


def _versions(saved: SavedModel) -> list[tuple[str, str]]:
    """List the versions that trained, as the model file has them, then those that write this page and differ."""
    here = {
        "version": seenet.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
    trained = [
        (f"{'SeENet' if key == 'version' else key}, training", str(saved.notes[key]))
        for key in ("device", *here)
        if key in saved.notes
    ]
    changed = [
        (f"{'SeENet' if key == 'version' else key}, this page", value)
        for key, value in here.items()
        if saved.notes.get(key) != value
    ]
    return [*trained, *changed]


def _commands(run: Path, recipe: Recipe, result: dict[str, Any] | None) -> str:
    folder, kind = shlex.quote(str(run)), recipe.data.kind
    # A data set that is code is run only where the command names it.
    data = f" {shlex.quote(f'data.kind={kind}')}" if ":" in kind else ""
    lines = [
        f"seenet train {shlex.quote(str(run / 'recipe.yaml'))} --out {shlex.quote(f'{run}-again')}   # train the same again"
    ]
    if result is not None:
        lines.append(f"seenet eval {folder}{data}   # measure it")
    lines += [
        f"seenet predict {folder} picture.jpg   # use it",
        f"seenet report {folder}{data}   # write this page",
    ]
    if result and result.get("command"):
        lines.insert(0, f"{result['command']}   # what was run")
    return "\n".join(lines)
