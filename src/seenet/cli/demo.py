"""seenet demo"""

from pathlib import Path
from typing import Annotated

import typer

from seenet.cli.arguments import Device


def demo(
    out: Annotated[Path, typer.Option(help="Folder of all outputs.")] = Path("demo"),
    device: Device = "auto",
) -> None:
    """Segment the bundled photographs, then train, evaluate and run a small network.

    Takes some minutes and needs no data.
    """
    from rich.console import Console

    from seenet.demo import run_demo
    from seenet.evaluation.outcome import tables

    Console().print(tables(run_demo(out, device=device)))
    print(f"open {out / 'index.html'}")
