"""seenet export"""

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    model: Annotated[str, typer.Argument(help="Run folder, .safetensors file or bundled name.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    kind: Annotated[Literal["fp16"], typer.Option("--format", help="fp16: one .safetensors of half the size.")] = "fp16",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a model as a file for others to use, and check what was written."""
    from seenet.export.half import export_half

    error = export_half(model, out, overwrite=overwrite)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB in {kind}, weights within {error:.1e} of their tensor's largest")
