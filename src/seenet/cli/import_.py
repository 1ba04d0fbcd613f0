"""seenet import"""

from pathlib import Path
from typing import Annotated

import typer


def import_(
    file: Annotated[Path, typer.Argument(help="A .pth or .pt file of weights.")],
    out: Annotated[
        Path | None,
        typer.Argument(help="The .safetensors file to write. Default: FILE.safetensors."),
    ] = None,
) -> None:
    """Convert a pickled file of weights to .safetensors, without running any code in it."""
    from seenet.core.errors import UsageError
    from seenet.model.unpickle import import_pickle

    if file.suffix == ".safetensors":
        raise UsageError(
            f"{file}: is .safetensors already, expected a .pth or .pt file; "
            f"use it directly: model.weights={file}"
        )
    out = out or file.with_suffix(".safetensors")
    print(f"{import_pickle(file, out)} tensors: {out}")
