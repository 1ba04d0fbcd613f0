"""seenet probe"""

from pathlib import Path
from typing import Annotated

import typer

from seenet.cli.ablate import run_plan
from seenet.cli.arguments import AsJson, DryRun, Model, RunsDevice, recipe_and_overrides


def probe(
    model: Model,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...",
            help="Training of the probes: a recipe (default: that of the run) and settings, such "
            "as training.steps=200.",
        ),
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE,STAGE,...",
            help="B2, EB2, B3, B3+B2, B3+EB2. Default: all stages of the model.",
        ),
    ] = None,
    joint: Annotated[
        bool,
        typer.Option(
            "--joint", help="Also train the network below the probe, instead of freezing it."
        ),
    ] = False,
    seeds: Annotated[int, typer.Option(help="Runs of each stage, with seeds 0, 1, ...")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of runs and results. Default: RUN/probe or probes/NAME."),
    ] = None,
    device: RunsDevice = "auto",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train a small classifier on each stage of a trained network (Table 2).

    A second call keeps finished runs and continues interrupted ones.
    """
    from seenet.experiments.probe import make_probe_plan

    recipe, settings = recipe_and_overrides(arguments or [])
    plan = make_probe_plan(model, recipe, settings, out, stages=stages, joint=joint, seeds=seeds)
    run_plan(plan, device=device, dry_run=dry_run, as_json=as_json)
