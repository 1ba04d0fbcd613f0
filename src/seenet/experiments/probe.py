"""Stage probes (Table 2): a plan of runs that train a small classifier on each stage of a model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seenet.core.errors import UsageError, nearest
from seenet.core.files import sha256
from seenet.core.recipe_files import refuse_code
from seenet.core.settings import ModelSettings, Recipe
from seenet.data import open_split
from seenet.experiments.plan import (
    PaperRow,
    Plan,
    Row,
    Run,
    check_comparable,
    load_without_stages,
    uninitialized_model,
)
from seenet.model.factory import unknown_parts
from seenet.model.files import find_model, load_model, read_options
from seenet.model.probe import PROBES, StageProbe, probes_of
from seenet.model.summary import summarize

TABLE_2 = {"B2": 50.1, "EB2": 62.4, "B3": 69.4, "B3+B2": 71.5, "B3+EB2": 73.5}
"""mIoU in percent of the stages of SeENet on ResNet-101, VOC 2012 val."""

RULES = {
    "parameters": "of the probe alone: a conv unit 3x3x256 and a 1x1 classifier",
    "paper": "Table 2 of the paper, which does not say whether everything was trained: SeENet on "
    "ResNet-101, VOC 2012 val, another data set, backbone and budget than measured here unless all "
    "are the same",
}
MODES = {
    False: {
        "frozen below": "everything under the probe keeps its weights and batch norm's statistics"
    },
    True: {"joint": "everything under the probe is trained with it, from the weights of the model"},
}
"""Name and rule of a mode, by `joint`."""


def find_model_with_stages(model: str | Path) -> Path:
    """Find a model's file; UsageError for a network of `model.factory`: its stages are unknown."""
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
    """Plan a run for each stage and seed, with a probe on the stage as its network.

    Args:
        model: run folder, .safetensors file or bundled name of the trained network.
        recipe: name or file; None: the recipe beside the model.
        settings: `key=value` on the recipe.
        out: None: `probe` (or `probe-joint`) in the model's run, or `probes/NAME` without a run.
        stages: names with commas between; None: all that the model has.
        joint: train everything under the probe too.
        seeds: number of runs of each stage.

    Raises:
        UsageError: stages that the model does not have, settings that a probe sets itself, or code
            that nothing but the recipe beside the model names (`refuse_code`).
        DataError: no such model or data.
    """
    path = find_model_with_stages(model)
    # A file that is no model of SeENet has no options, and `load_model` says so.
    options = read_options(path) or load_model(path).model.options
    names = _parse_stages(path, options, stages)
    source = recipe or path.parent / "recipe.yaml"
    if recipe is None and not Path(source).is_file():
        raise UsageError(
            f"{path}: belongs to no run whose recipe says how to train; give a recipe, such as: "
            f"seenet probe {path} shapes"
        )
    # The network as it was built, with its weights.
    network = {key: value for key, value in options.items() if key in ModelSettings.model_fields}
    forced = {
        "model": {**network, "weights": str(path)},
        "loss.auxiliary": 0,
        "training.start_from": None,
        "training.freeze_below": not joint,
    }
    _check_settings(settings, {*forced, "seed"})

    def load_probe(stage: str, seed: int) -> Recipe:
        own = [f"{key}={json.dumps(value)}" for key, value in forced.items()]
        own += [f"model.probe={stage}", f"seed={seed}"]
        return load_without_stages(source, [*settings, *own])

    base = load_probe(names[0], 0)
    if recipe is None:
        refuse_code(base, settings, source)
    check_comparable(base, seeds)
    num_classes = open_split(base.data, base.data.train).labels.num_classes
    folder = out or _default_out(path, joint)
    rows = [_make_row(load_probe(name, 0), name, num_classes) for name in names]
    runs = [
        Run(row, seed, load_probe(row.name, seed), folder / f"{row.name}-seed-{seed}")
        for seed in range(seeds)
        for row in rows
    ]
    (mode,) = MODES[joint]
    about = {"model": {"file": str(path), "sha256": sha256(path)}}
    rules = {**RULES, **MODES[joint]}
    return Plan(folder, base, rows, seeds, runs, rows[0], f"stage ({mode})", rules, about)


def _parse_stages(path: Path, options: dict[str, Any], stages: str | None) -> list[str]:
    if options.get("probe"):
        raise UsageError(f"{path}: a probe itself; expected a row of Table 1 or a peer")
    known = probes_of(options["variant"])
    if stages is None:
        return known
    names = list(dict.fromkeys(name.strip() for name in stages.split(",")))
    for name in names:
        if name not in PROBES:
            raise UsageError(f"--stages {name}: no such stage; {nearest(name, PROBES)}")
        if name not in known:
            raise UsageError(
                f"--stages {name}: {path} ({options['variant']}) has no enhanced B2; "
                f"it has {', '.join(known)}"
            )
    return names


def _check_settings(settings: Sequence[str], taken: set[str]) -> None:
    for setting in settings:
        key = setting.partition("=")[0]
        if key in taken or key.partition(".")[0] == "model":
            raise UsageError(
                f"{setting}: a probe sets {key} itself, by the model, --stages, --joint and "
                "--seeds; leave it out"
            )


def _default_out(path: Path, joint: bool) -> Path:
    kind = "-joint" if joint else ""
    if (path.parent / "recipe.yaml").is_file():
        return path.parent / f"probe{kind}{'' if path.stem == 'model' else f'-{path.stem}'}"
    return Path("probes") / f"{path.stem}{kind}"


def _make_row(recipe: Recipe, stage: str, num_classes: int) -> Row:
    model = uninitialized_model(recipe, num_classes)
    assert isinstance(model, StageProbe)
    is_papers = recipe.model.variant == "seenet"
    paper = PaperRow(stage, "seenet", "resnet101", TABLE_2[stage]) if is_papers else None
    flops = sum(part.flops for part in summarize(model, *recipe.transforms.crop))
    parameters = sum(parameter.numel() for parameter in model.head.parameters())
    settings = (f"model.probe={stage}",)
    return Row(stage, settings, paper, parameters, flops, model.options["output_stride"])
