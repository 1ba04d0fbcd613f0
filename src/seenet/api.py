"""For notebooks: what the commands do, with settings objects in and results out; `seenet.export` stands with its package."""

from pathlib import Path
from typing import Any

from seenet.core.recipe_files import load_recipe
from seenet.core.settings import Recipe
from seenet.training.stages import train_recipe
from seenet.training.trainer import TrainResult


def train(
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    device: str = "auto",
) -> TrainResult:
    """Train a recipe (settings, name or YAML path) into the folder `out`; errors as `seenet train`.

    None: `runs/RECIPE`; of settings, which have no name, `runs/DATA`, their kind of data.
    """
    resolved = load_recipe(recipe)
    kind = resolved.data.kind.replace(":", "-")  # of a callable, for a folder's name
    name = kind if isinstance(recipe, Recipe) else Path(recipe).stem
    return train_recipe(
        resolved, Path("runs") / name if out is None else Path(out), resume=resume, device=device
    )


def evaluate(
    model: str | Path,
    recipe: Recipe | str | Path | None = None,
    overrides: list[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score a model by run, file or bundled name and return the result; options and errors as `evaluation.run.run_evaluation`."""
    from seenet.evaluation.run import run_evaluation

    return run_evaluation(model, recipe, overrides or [], **options).result
