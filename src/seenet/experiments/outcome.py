"""What an ablation came to, from the folders of its runs: the content of results.json."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

import seenet
from seenet.core.files import sha256
from seenet.core.recipe_files import dump
from seenet.experiments.plan import Cell, Plan, Run
from seenet.experiments.state import is_finished, read_result
from seenet.experiments.statistics import Spread, paired_difference, spread
from seenet.training.logging import read_metrics

PROTOCOL = (
    "data", "split", "images", "labels", "ignore_rule", "absent_rule", "size_rule", "scales", "flip", "precision", "precision_of_training",
)  # fmt: skip


def outcome(plan: Plan, *, failed: dict[str, str], command: str | None) -> dict[str, Any]:
    """Numbers are shares (0..1), FLOPs and MiB. `complete` is false while a run is missing, and `missing` names it.

    `protocol` is the first run's; `differs` lists the values of what is not the same in all of them (`precision: auto` may choose two).
    """
    finished = [run for run in plan.runs if is_finished(run)]
    results = {run.name: read_result(run) or {} for run in finished}
    mious = {cell.name: {run.seed: float(results[run.name]["miou"]) for run in finished if run.cell is cell} for cell in plan.cells}
    first = results[finished[0].name] if finished else {}
    return {
        "complete": len(finished) == len(plan.runs),
        "finished": len(finished),
        "planned": len(plan.runs),
        "missing": [run.name for run in plan.runs if run.name not in results],
        "failed": failed,
        "unit": plan.unit,
        **plan.about,
        "reference": plan.reference.name,
        "rules": {
            "miou": "of the best validation of a run, the model it keeps; last_miou of the last one",
            "difference": "row - reference, paired by seed; interval: 95 %, Student t over the paired seeds",
            "flops": f"of one image of the crop's size, {plan.recipe.transforms.crop[0]}x{plan.recipe.transforms.crop[1]}",
            "images_per_s": "training, median over all steps of all seeds, on the machine where they ran",
            "memory_mib": "training, highest of all steps of all seeds: the device's on CUDA, else the process's",
            "paper": "Table 1 of the paper: VOC 2012 val, another data set, backbone and budget than measured here unless all are the same",
            **plan.rules,
        },
        "protocol": {key: first[key] for key in PROTOCOL if key in first},
        "differs": _differences(list(results.values())),
        "rows": [_row(plan, cell, [run for run in finished if run.cell is cell], results, mious) for cell in plan.cells],
        "recipe": dump(plan.recipe),
        "version": seenet.__version__,
        "command": command,
    }


def _differences(results: list[dict[str, Any]]) -> dict[str, list[Any]]:
    found = {key: [json.loads(text) for text in sorted({json.dumps(result.get(key)) for result in results})] for key in PROTOCOL}
    return {key: values for key, values in found.items() if len(values) > 1}


def _row(plan: Plan, cell: Cell, runs: list[Run], results: dict[str, dict[str, Any]], mious: dict[str, dict[int, float]]) -> dict[str, Any]:
    metrics = [entry for run in runs for entry in read_metrics(run.folder / "metrics.jsonl")]
    speeds = [entry["images_per_s"] for entry in metrics if "images_per_s" in entry]
    memory = [entry["memory_mib"] for entry in metrics if "memory_mib" in entry]
    own = mious[cell.name]
    difference = paired_difference(own, mious[plan.reference.name]) if cell is not plan.reference else None
    return {
        "row": cell.name,
        "settings": list(cell.settings),
        "paper": None if cell.paper is None else asdict(cell.paper),
        "planned": plan.seeds,
        "miou": _spread(spread(list(own.values()))) if own else None,
        "difference": None if difference is None else {**_spread(difference), "resolved": difference.resolved},
        "parameters": cell.parameters,
        "flops": cell.flops,
        "output_stride": cell.output_stride,
        "images_per_s": float(np.median(speeds)) if speeds else None,
        "memory_mib": max(memory) if memory else None,
        "runs": [_run(run, results[run.name]) for run in runs],
    }


def _spread(value: Spread) -> dict[str, Any]:
    return {"mean": value.mean, "sd": value.sd, "interval": None if value.interval is None else list(value.interval), "seeds": value.count}


def _run(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    validations = [entry["val"]["miou"] for entry in read_metrics(run.folder / "metrics.jsonl") if "val" in entry]
    model = run.folder / "model.safetensors"
    return {
        "seed": run.seed,
        "folder": str(run.folder),
        "miou": result["miou"],
        "step": result.get("step"),
        "last_miou": validations[-1] if validations else None,
        "absent": result.get("absent"),
        "model": {"file": str(model), "sha256": sha256(model)},
    }
