"""Stage probes (Table 2): a plan of runs that train a small classifier on each stage of a model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seenet.core.errors import UsageError
from seenet.core.files import sha256
from seenet.core.recipe_files import refuse_code
from seenet.core.settings import ModelSettings
from seenet.experiments.plan import (
    PaperRow,
    Plan,
    check_comparable,
    load_without_stages,
    make_row,
)
from seenet.model.factory import unknown_parts
from seenet.model.files import find_model, load_model, read_options
from seenet.model.probe import probes_of

MIOUS = {"B2": 50.1, "EB2": 62.4, "B3": 69.4, "B3+B2": 71.5, "B3+EB2": 73.5}
TABLE_2 = {stage: PaperRow(stage, "seenet", "resnet101", miou) for stage, miou in MIOUS.items()}
RULES = {
    "parameters": "of the probe alone: a conv unit 3x3x256 and a 1x1 classifier",
    "paper": "Table 2 of the paper, which does not say whether everything was trained: SeENet on "
    "ResNet-101, VOC 2012 val, another data set, backbone and budget than measured here unless all "
    "are the same",
}
MODES = {
    False: (
        "frozen below",
        "everything under the probe keeps its weights and batch norm's statistics",
    ),
    True: (
        "joint",
        "everything under the probe is trained with it, from the weights of the model",
    ),
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
    own = {
        "model": {**network, "weights": str(path)},
        "loss.auxiliary": 0,
        "training.start_from": None,
        "training.freeze_below": not joint,
    }
    for setting in settings:
        key = setting.partition("=")[0]
        if key in {*own, "seed"} or key.startswith("model."):
            raise UsageError(
                f"{setting}: a probe sets {key} itself, by the model, --stages, --joint and "
                "--seeds; leave it out"
            )
    all_settings = [*settings, *(f"{key}={json.dumps(value)}" for key, value in own.items())]
    recipes = {
        name: load_without_stages(source, [*all_settings, f"model.probe={name}"]) for name in names
    }
    base = recipes[names[0]]
    if recipe is None:
        refuse_code(base, settings, source)
    num_classes = check_comparable(base, seeds)
    papers = TABLE_2 if options["variant"] == "seenet" else {}
    rows = [
        make_row(name, (f"model.probe={name}",), resolved, papers.get(name), num_classes)
        for name, resolved in recipes.items()
    ]
    about = {"model": {"file": str(path), "sha256": sha256(path)}}
    mode, rule = MODES[joint]
    rules = {**RULES, mode: rule}
    folder = out or _default_out(path, joint)
    return Plan(folder, base, rows, seeds, rows[0], f"stage ({mode})", rules, about)


def _parse_stages(path: Path, options: dict[str, Any], stages: str | None) -> list[str]:
    if options.get("probe"):
        raise UsageError(f"{path}: a probe itself; expected a row of Table 1 or a peer")
    known = probes_of(options["variant"])
    names = known if stages is None else [name.strip() for name in stages.split(",")]
    for name in names:
        if name not in known:
            raise UsageError(
                f"--stages {name}: no such stage in {path} ({options['variant']}); "
                f"expected of {', '.join(known)}"
            )
    return names


def _default_out(path: Path, joint: bool) -> Path:
    kind = "-joint" if joint else ""
    if not (path.parent / "recipe.yaml").is_file():
        return Path("probes") / f"{path.stem}{kind}"
    return path.parent / f"probe{kind}{'' if path.stem == 'model' else f'-{path.stem}'}"
