"""seenet ablate"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from seenet.experiments.plan import Plan


class VaryingCommand(TyperCommand):
    """`--vary A=1,2 B=3,4` as people write it: what follows --vary, up to the next option, is varied too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spelt, varying = [], False
        for before, argument in zip(["", *args], args, strict=False):
            varying = before == "--vary" or (varying and "=" in argument and not argument.startswith("-"))
            spelt += ["--vary", argument] if varying and before != "--vary" else [argument]
        return super().parse_args(ctx, spelt)


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=VaryingCommand)
def ablate(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a YAML file.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of all runs, before --vary.")] = None,
    rows: Annotated[
        str | None,
        typer.Option(help="Rows of Table 1 by letter (a,b,...,j) or name, peers by name, package.module:callable; default: the recipe's."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each row, with seeds 0, 1, ...")] = 1,
    vary: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE,VALUE... ...", help="Settings to vary: every combination is a row.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Row that the others are compared with; default: the first.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs and results; default ablations/RECIPE.")] = None,
    device: Annotated[str, typer.Option(help="auto (one run a GPU where there are several), cpu, cuda or mps.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and how far they are, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train rows of Table 1, peers or any grid with several seeds, and compare them. Finished runs are kept, interrupted ones go on."""
    from seenet.experiments.plan import make_plan

    folder = out or Path("ablations") / Path(recipe).stem
    plan = make_plan(recipe, settings or [], folder, rows=rows, seeds=seeds, vary=vary or [], reference=reference)
    run_plan(plan, device=device, dry_run=dry_run, as_json=as_json)


def run_plan(plan: "Plan", *, device: str, dry_run: bool, as_json: bool) -> None:
    """Say how far the runs are, or train what is missing and print what came of it."""
    import json

    from seenet.cli.arguments import command_line
    from seenet.experiments.ablate import ablate as run
    from seenet.experiments.ablate import states
    from seenet.experiments.results import markdown

    if dry_run:
        found = states(plan)
        done = sum(entry["state"] == "finished" for entry in found)
        print(
            json.dumps(found, indent=1)
            if as_json
            else "\n".join([*(f"{entry['run']}: {entry['state']}" for entry in found), f"{done} of {len(found)} runs finished"])
        )
        return
    result = run(plan, device=device, command=command_line())
    if as_json:
        print(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        print(f"{markdown(result)}\nwritten: {plan.out}/results.json, table.md, table.csv, plot.png")
