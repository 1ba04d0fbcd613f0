"""seenet ablate"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from seenet.cli.arguments import AsJson, DryRun, Recipe, RunsDevice, command_line, output

if TYPE_CHECKING:
    from seenet.experiments.plan import Plan


class VaryingCommand(TyperCommand):
    """A command that takes `--vary A=1,2 B=3,4`: every KEY=VALUE after --vary is varied too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spelt, varying = [], False
        for before, argument in zip(["", *args], args, strict=False):
            varying = before == "--vary" or (
                varying and "=" in argument and not argument.startswith("-")
            )
            spelt += ["--vary", argument] if varying and before != "--vary" else [argument]
        return super().parse_args(ctx, spelt)


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=VaryingCommand)
def ablate(
    recipe: Recipe,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of all runs, before --vary."),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            help="Rows of Table 1 by letter (a,b,...,j) or name, peers by name, or "
            "package.module:callable. Default: the recipe's network."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each row, with seeds 0, 1, ...")] = 1,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,VALUE... ...",
            help="Settings to vary. Each combination of values is a row.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Row that the others are compared with. Default: the first."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs and results. Default: ablations/RECIPE.")
    ] = None,
    device: RunsDevice = "auto",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train variants with several seeds and compare them.

    Variants are rows of Table 1, peers, or a grid of settings. A second call keeps finished runs
    and continues interrupted ones.
    """
    from seenet.experiments.plan import make_plan

    folder = out or Path("ablations") / Path(recipe).stem
    plan = make_plan(
        recipe, settings or [], folder, rows=rows, seeds=seeds, vary=vary or [], reference=reference
    )
    run_plan(plan, device=device, dry_run=dry_run, as_json=as_json)


def run_plan(plan: "Plan", *, device: str, dry_run: bool, as_json: bool) -> None:
    """Print the state of the runs, or run those not finished and print the comparison."""
    from seenet.experiments.ablate import ablate as run
    from seenet.experiments.ablate import states
    from seenet.experiments.results import markdown

    if dry_run:
        runs = states(plan)
        done = sum(entry["state"] == "finished" for entry in runs)
        lines = [f"{entry['run']}: {entry['state']}" for entry in runs]
        lines.append(f"{done} of {len(runs)} runs finished")
        output(runs, "\n".join(lines), as_json=as_json)
        return
    result = run(plan, device=device, command=command_line())
    written = f"written: {plan.out}/results.json, table.md, table.csv, plot.png"
    output(result, f"{markdown(result)}\n{written}", as_json=as_json)
