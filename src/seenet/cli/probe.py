"""seenet probe"""

from pathlib import Path
from typing import Annotated

import typer


def probe(
    model: Annotated[
        str, typer.Argument(help="Trained network: run folder, .safetensors file or bundled name.")
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...",
            help="How to train the probes: a recipe (default: the run's own) and settings, such as training.steps=200.",
        ),
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE,STAGE,...",
            help="B2, EB2, B3, B3+B2, B3+EB2; default: all that the model has.",
        ),
    ] = None,
    joint: Annotated[
        bool,
        typer.Option(
            "--joint", help="Train everything under the probe too, instead of freezing it."
        ),
    ] = False,
    seeds: Annotated[int, typer.Option(help="Runs of each stage, with seeds 0, 1, ...")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the runs and results; default RUN/probe or probes/NAME."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto (one run a GPU where there are several), cpu, cuda or mps.")
    ] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and how far they are, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a small classifier on each stage of a trained network (Table 2). Finished runs are kept, interrupted ones go on."""
    from seenet.cli.ablate import run_plan
    from seenet.cli.arguments import recipe_and_overrides
    from seenet.experiments.probe import make_probe_plan

    recipe, settings = recipe_and_overrides(arguments or [])
    plan = make_probe_plan(model, recipe, settings, out, stages=stages, joint=joint, seeds=seeds)
    run_plan(plan, device=device, dry_run=dry_run, as_json=as_json)
