"""seenet report"""

from pathlib import Path
from typing import Annotated

import typer

from seenet.cli.arguments import Device, Factory


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
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

    print(f"open {write_report(run, device=device, factory=factory, model=model)}")
