"""Functions for notebooks that do what the commands do; `seenet.export` is in `export/`."""

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
    """Train a recipe; errors as `seenet train`.

    Args:
        recipe: settings, name or YAML path.
        out: folder of the run; None: `runs/RECIPE`, or `runs/KIND` (kind of data) for settings,
            which have no name.
        resume: continue the existing run.
    """
    resolved = load_recipe(recipe)
    kind = resolved.data.kind.replace(":", "-")  # a callable's name becomes a folder's
    name = kind if isinstance(recipe, Recipe) else Path(recipe).stem
    folder = Path("runs") / name if out is None else Path(out)
    return train_recipe(resolved, folder, resume=resume, device=device)


def evaluate(
    model: str | Path,
    recipe: Recipe | str | Path | None = None,
    overrides: list[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score a model and return the content of its result file.

    Args:
        model: run folder, .safetensors file, exported bundle or bundled name.
        recipe, overrides, options: as `seenet.evaluation.run.run_evaluation`, and so are errors.
    """
    from seenet.evaluation.run import run_evaluation

    return run_evaluation(model, recipe, overrides or [], **options).result
