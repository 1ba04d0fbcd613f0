"""seenet train"""

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a YAML file.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Any setting, such as training.steps=100."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default runs/RECIPE.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that is there.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Two full-size steps; say what the run would take, and stop."
        ),
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the whole resolved recipe, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
) -> None:
    """Train a recipe, or go on with a run."""
    import json
    import logging

    from seenet.core.processor import crowded
    from seenet.core.recipe_files import dump, load_recipe

    resolved = load_recipe(recipe, settings)
    if show:
        print(dump(resolved), end="")
        return
    if busy := crowded():
        logging.getLogger("seenet").warning(busy)
    if dry_run:
        from seenet.training.stages import forecast_recipe

        found = forecast_recipe(resolved, device)
        print(json.dumps(found.as_dict(), indent=1) if as_json else "\n".join(found.lines()))
        return
    from seenet.cli.arguments import command_line
    from seenet.training.stages import train_recipe

    result = train_recipe(
        resolved,
        out or Path("runs") / Path(recipe).stem,
        resume=resume,
        device=device,
        command=command_line(),
    )
    if not result.first:
        return
    if as_json:
        print(json.dumps({"out": str(result.out), "steps": result.steps, "miou": result.miou}))
    elif result.miou is None:
        print(f"{result.steps} steps, no validation: {result.out}/model.safetensors")
    else:
        print(f"best val mIoU {100 * result.miou:.1f} %: {result.out}/model.safetensors")
