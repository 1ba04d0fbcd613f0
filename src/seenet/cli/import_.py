"""seenet import"""

from pathlib import Path
from typing import Annotated

import typer


def import_(
    file: Annotated[Path, typer.Argument(help="A .pth or .pt file of weights.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
) -> None:
    """Rewrite a pickled file of weights as .safetensors; nothing in it is executed."""
    from seenet.model.unpickle import import_pickle

    print(f"{import_pickle(file, out)} tensors: {out}")
