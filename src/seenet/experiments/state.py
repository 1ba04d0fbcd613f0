"""How far a run of an ablation is, from its folder alone."""

import json
from typing import Any

from seenet.core.errors import UsageError
from seenet.core.files import check_free
from seenet.core.recipe_files import load_recipe
from seenet.experiments.plan import Plan, Run
from seenet.training.logging import read_metrics
from seenet.training.run import difference

RESULTS = "results.json"
TABLES = ("table.md", "table.csv", "plot.png")


def check_folder(plan: Plan) -> None:
    """UsageError where the folder holds results of another kind, on another model, or a run of other settings; DataError where it holds
    files of the user's own in the results' places.
    """
    path = plan.out / RESULTS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not (isinstance(found, dict) and "rows" in found):
        check_free([plan.out / name for name in (RESULTS, *TABLES)], overwrite=False)
    else:
        for key, now in {"unit": plan.unit, **plan.about}.items():
            before = found.get(key, "row" if key == "unit" else None)
            if before != now:
                raise UsageError(f"{path}: {key} was {before} and is now {now}; give another --out")
    for run in plan.runs:
        _check_recipe(run)


def _check_recipe(run: Run) -> None:
    path = run.folder / "recipe.yaml"
    if path.is_file():
        found = difference(load_recipe(path), run.recipe)
        if found:
            raise UsageError(f"{path}: {found}; give another --out, or the settings of the runs that are there")


def is_finished(run: Run) -> bool:
    """Whether the run ended by itself, with a model and its score."""
    try:
        ended = json.loads((run.folder / "exit.json").read_text(encoding="utf-8"))["0"]["code"] == 0
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return ended and (run.folder / "model.safetensors").is_file() and read_result(run) is not None


def read_result(run: Run) -> dict[str, Any] | None:
    """The run's val.json; None where there is none yet."""
    try:
        result = json.loads((run.folder / "val.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return dict(result) if isinstance(result, dict) and isinstance(result.get("miou"), float) else None


def state(run: Run) -> str:
    """For people: finished, how many steps are done, or not started."""
    if is_finished(run):
        return "finished"
    steps = [entry["step"] for entry in read_metrics(run.folder / "metrics.jsonl")]
    if steps or (run.folder / "recipe.yaml").is_file():
        return f"started, {max(steps, default=0)} of {run.recipe.training.steps} steps"
    return "not started"
