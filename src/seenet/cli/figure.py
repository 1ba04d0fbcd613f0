"""seenet figure"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Draw the paper's figures for your own runs.")


@app.callback()
def figure() -> None:
    """Draw the paper's figures for your own runs."""


@app.command()
def widths(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT.json...", help="Result files of seenet eval, a line each.")],
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="The figure.")] = Path("widths.png"),
) -> None:
    """mIoU near outlines over the width of the band, several models in one figure."""
    from seenet.experiments.widths import write_widths_figure

    write_widths_figure(results, out)
    print(f"written: {out}")


@app.command()
def gap(
    model: Annotated[str, typer.Argument(help="Run folder, .safetensors file or bundled name.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...",
            help="Which data: a recipe (default: the run's own) and settings, such as data.kind=camvid data.root=PATH.",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split by the data set's own name; default: the recipe's data.val.")] = None,
    pixels: Annotated[int, typer.Option(help="Points drawn from the split, always the same ones.")] = 20_000,
    out: Annotated[Path | None, typer.Option(help="Folder of gap.json and gap.png; default RUN/gap/SPLIT or gaps/MODEL-SPLIT.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print gap.json instead of lines.")] = False,
) -> None:
    """The semantic gap: how alike the stages' features are (linear CKA), before and after enhancement."""
    import json

    from seenet.cli.arguments import command_line, recipe_and_overrides
    from seenet.experiments.gap import write_gap
    from seenet.experiments.gap_figure import lines

    recipe, overrides = recipe_and_overrides(arguments or [])
    result, folder = write_gap(
        model, recipe, overrides, split=split, pixels=pixels, device=device, out=out, overwrite=overwrite, command=command_line()
    )
    words = [*lines(result), f"written: {folder}/gap.json, gap.png"]
    print(json.dumps(result, indent=1, ensure_ascii=False) if as_json else "\n".join(words))
