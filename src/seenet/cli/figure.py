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
