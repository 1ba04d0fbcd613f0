"""seenet demo"""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything it writes.")] = Path("demo"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Segment the bundled photographs, then train, evaluate and run a small network; some minutes, no data needed."""
    from rich.console import Console

    from seenet.demo import run_demo
    from seenet.evaluation.outcome import tables

    report = run_demo(out, device=device)
    Console().print(tables(report.result))
    print(f"open {report.page}")
