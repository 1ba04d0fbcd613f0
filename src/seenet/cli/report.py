"""seenet report"""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Where the run's pictures are, such as data.root=PATH.",
        ),
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="Predict the pictures with this in place of the run's model: a bundle exported from it."
        ),
    ] = None,
    factory: Annotated[
        str | None,
        typer.Option(help="Of a model made by model.factory: package.module:callable, again."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Write a run's page: curves, scores, worst and best pictures."""
    from seenet.report.page import write_report

    path = write_report(run, settings or [], device=device, factory=factory, model=model)
    print(f"open {path}")
