"""seenet report"""

from pathlib import Path
from typing import Annotated

import typer

from seenet.cli.arguments import Device, Factory


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
            help="Model that predicts the images instead of the run's own: a bundle exported from "
            "it."
        ),
    ] = None,
    factory: Factory = None,
    device: Device = "auto",
) -> None:
    """Write the HTML page of a run: curves, scores, worst and best images."""
    from seenet.report.page import write_report

    path = write_report(run, settings or [], device=device, factory=factory, model=model)
    print(f"open {path}")
