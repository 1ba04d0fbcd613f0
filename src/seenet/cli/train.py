"""seenet train"""

import logging
from pathlib import Path
from typing import Annotated

import typer

from seenet.cli.arguments import AsJson, Device, Recipe, command_line, output


def train(
    recipe: Recipe,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Any setting, such as training.steps=100."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: runs/RECIPE.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the existing run.")] = False,
    device: Device = "auto",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Train two full-size steps, print the expected cost, and exit."
        ),
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the resolved recipe and exit.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe, or continue a run."""
    from seenet.core.processor import crowded
    from seenet.core.recipe_files import dump, load_recipe

    resolved = load_recipe(recipe, settings)
    if show:
        print(dump(resolved), end="")
        return
    if busy := crowded():
        logging.getLogger("seenet").warning(busy)
    # Imported here, since torch is slow to import.
    from seenet.training.stages import forecast_recipe, train_recipe

    if dry_run:
        found = forecast_recipe(resolved, device)
        output(found.as_dict(), "\n".join(found.lines()), as_json=as_json)
        return
    folder = out or Path("runs") / Path(recipe).stem
    result = train_recipe(resolved, folder, resume=resume, device=device, command=command_line())
    if result.first:
        reached = f"{result.steps} steps, no validation"
        if result.miou is not None:
            reached = f"best val mIoU {100 * result.miou:.1f} %"
        output(
            {"out": str(result.out), "steps": result.steps, "miou": result.miou},
            f"{reached}: {result.out}/model.safetensors",
            as_json=as_json,
        )
