"""`seenet probe`: how well each stage of a trained network segments on its own (Table 2), as a plan for the runner of ablations."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seenet.core.errors import UsageError, nearest
from seenet.core.files import sha256
from seenet.core.recipe_files import refuse_code
from seenet.core.settings import ModelSettings, Recipe
from seenet.data import open_split
from seenet.experiments.plan import Cell, PaperRow, Plan, Run, check_comparable, single, unfilled
from seenet.model.factory import unknown_parts
from seenet.model.files import find_model, load_model, read_options
from seenet.model.probe import PROBES, StageProbe, probes_of
from seenet.model.summary import summarize

TABLE_2 = {"B2": 50.1, "EB2": 62.4, "B3": 69.4, "B3+B2": 71.5, "B3+EB2": 73.5}
"""mIoU in percent of the stages of SeENet on ResNet-101, VOC 2012 val."""

MODES = {False: "frozen below", True: "joint"}

FORCED = {"loss.auxiliary": 0, "training.start_from": None}
"""What a recipe may say for a whole network, but not for a probe."""

RULES = {
    "parameters": "of the probe alone: a conv unit 3x3x256 and a 1x1 classifier",
    "paper": "Table 2 of the paper, which does not say whether everything was trained: SeENet on ResNet-101, VOC 2012 val, another data "
    "set, backbone and budget than measured here unless all are the same",
    "frozen below": "everything under the probe keeps its weights and batch norm's statistics",
    "joint": "everything under the probe is trained with it, from the weights of the model",
}


def with_stages(model: str | Path) -> Path:
    """Find the file of a model whose parts are known by name; UsageError for a network of `model.factory`."""
    path = find_model(model)
    factory = read_options(path).get("factory")
    if factory:
        raise UsageError(f"{path}: {unknown_parts(factory)}")
    return path


def make_probe_plan(
    model: str,
    recipe: str | Path | None,
    settings: Sequence[str],
    out: Path | None,
    *,
    stages: str | None,
    joint: bool,
    seeds: int,
) -> Plan:
    """Plan a run for each stage and seed: the recipe (default: the one beside the model) with a probe as its network.

    OUT is by default `probe` (or `probe-joint`) in the model's run, or `probes/NAME` where it belongs to none. Raises UsageError: stages
    that the model has not, settings that are the model's or the probe's own, code that the recipe
    beside the model names alone (`refuse_code`); DataError: no such model or data.
    """
    path = with_stages(model)
    # What is no model is refused as everywhere.
    options = read_options(path) or load_model(path).model.options
    names = _stages(path, options, stages)
    source = _recipe_of(path, recipe)
    forced = [
        f"model={json.dumps(_model(options, path))}",
        *(f"{key}={json.dumps(value)}" for key, value in FORCED.items()),
    ]
    forced.append(f"training.freeze_below={json.dumps(not joint)}")
    _check_settings(settings, forced)

    def resolved(stage: str, seed: int) -> Recipe:
        return single(source, [*settings, *forced, f"model.probe={stage}", f"seed={seed}"])

    base = resolved(names[0], 0)
    if recipe is None:
        refuse_code(base, settings, source)
    check_comparable(base, seeds)
    classes = open_split(base.data, base.data.train).labels.num_classes
    folder = out or _default_out(path, joint)
    cells = [_cell(resolved(name, 0), name, classes) for name in names]
    runs = [
        Run(cell, seed, resolved(cell.name, seed), folder / f"{cell.name}-seed-{seed}")
        for seed in range(seeds)
        for cell in cells
    ]
    rules = {
        key: rule for key, rule in RULES.items() if key not in MODES.values() or key == MODES[joint]
    }
    about = {"model": {"file": str(path), "sha256": sha256(path)}}
    return Plan(folder, base, cells, seeds, runs, cells[0], f"stage ({MODES[joint]})", rules, about)


def _stages(path: Path, options: dict[str, Any], stages: str | None) -> list[str]:
    if options.get("probe"):
        raise UsageError(f"{path}: a probe itself; expected a row of Table 1 or a peer")
    there = probes_of(options["variant"])
    if stages is None:
        return there
    names = list(dict.fromkeys(name.strip() for name in stages.split(",")))
    for name in names:
        if name not in PROBES:
            raise UsageError(f"--stages {name}: no such stage; {nearest(name, PROBES)}")
        if name not in there:
            raise UsageError(
                f"--stages {name}: {path} ({options['variant']}) has no enhanced B2; it has {', '.join(there)}"
            )
    return names


def _recipe_of(path: Path, recipe: str | Path | None) -> str | Path:
    beside = path.parent / "recipe.yaml"
    if recipe is None and not beside.is_file():
        raise UsageError(
            f"{path}: belongs to no run whose recipe says how to train; give a recipe, such as: seenet probe {path} shapes"
        )
    return recipe or beside


def _model(options: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the model section of a probe's recipe: the network as it was built, with its weights."""
    return {
        **{key: value for key, value in options.items() if key in ModelSettings.model_fields},
        "weights": str(path),
    }


def _check_settings(settings: Sequence[str], forced: Sequence[str]) -> None:
    taken = {setting.partition("=")[0] for setting in forced} | {"seed"}
    for setting in settings:
        key = setting.partition("=")[0]
        if key in taken or key.partition(".")[0] == "model":
            raise UsageError(
                f"{setting}: a probe sets {key} itself, by the model, --stages, --joint and --seeds; leave it out"
            )


def _default_out(path: Path, joint: bool) -> Path:
    kind = "-joint" if joint else ""
    if (path.parent / "recipe.yaml").is_file():
        return path.parent / f"probe{kind}{'' if path.stem == 'model' else f'-{path.stem}'}"
    return Path("probes") / f"{path.stem}{kind}"


def _cell(recipe: Recipe, stage: str, classes: int) -> Cell:
    model = unfilled(recipe, classes)
    assert isinstance(model, StageProbe)
    paper = (
        PaperRow(stage, "seenet", "resnet101", TABLE_2[stage])
        if recipe.model.variant == "seenet"
        else None
    )
    flops = sum(part.flops for part in summarize(model, *recipe.transforms.crop))
    parameters = sum(parameter.numel() for parameter in model.head.parameters())
    return Cell(
        stage, (f"model.probe={stage}",), paper, parameters, flops, model.options["output_stride"]
    )
