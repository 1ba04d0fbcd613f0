"""Arguments and options that several commands share, how they are read, and the output."""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from seenet.core.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from seenet.prediction.tiles import TileSize

Number = TypeVar("Number", int, float)

Recipe = Annotated[str, typer.Argument(help="Name of a recipe, or a YAML file.")]
Model = Annotated[str, typer.Argument(help="Run folder, .safetensors file or bundled name.")]
ModelOrBundle = Annotated[
    str, typer.Argument(help="Run folder, .safetensors file, exported bundle or bundled name.")
]
RecipeAndSettings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE] [KEY=VALUE]...",
        help="Data: a recipe (default: that of the run) and settings, such as data.kind=camvid "
        "data.root=PATH.",
    ),
]
IMAGES_HELP = "Images, folders (searched with their subfolders) or patterns."

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
RunsDevice = Annotated[
    str, typer.Option(help="auto (with several GPUs: one run on each), cpu, cuda or mps.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the runs and their state, and exit.")]
Factory = Annotated[
    str | None,
    typer.Option(help="For a network of model.factory: repeat its package.module:callable."),
]
Flip = Annotated[bool, typer.Option("--flip", help="Also average with the mirrored image.")]
Margin = Annotated[int, typer.Option(help="Context on each side of a tile, in pixels.")]
Memory = Annotated[float, typer.Option(help="Memory of one pass in GB, for --tile auto.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]
Scales = Annotated[
    str, typer.Option(help="Scales whose probabilities are averaged, such as 0.75,1,1.25.")
]
Split = Annotated[
    str | None, typer.Option(help="Split of the data set. Default: data.val of the recipe.")
]
Tile = Annotated[
    str,
    typer.Option(
        help="Side of the tiles of large images: auto (from --memory), whole (no tiles) or pixels."
    ),
]


def numbers(text: str, option: str, kind: Callable[[str], Number]) -> list[Number]:
    """`0.75,1` -> [0.75, 1.0] as floats, `1,3` -> [1, 3] as int; UsageError names the option."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        expected = "whole numbers separated by commas, such as 1,3,5"
        if kind is float:
            expected = "numbers separated by commas, such as 0.75,1,1.25"
        raise UsageError(f"{option} {text}: expected {expected}") from None


def tile_size(text: str) -> "TileSize":
    """`auto`, `whole`, or pixels; UsageError for anything else."""
    if text.isdecimal():
        return int(text)
    words: dict[str, TileSize] = {"auto": "auto", "whole": "whole"}
    if text not in words:
        raise UsageError(f"--tile {text}: expected auto, whole, or a number of pixels")
    return words[text]


def recipe_and_overrides(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split [RECIPE] [KEY=VALUE]...; UsageError for more than one recipe."""
    recipes = [argument for argument in arguments if "=" not in argument]
    if len(recipes) > 1:
        raise UsageError(
            f"{recipes[1]}: found a second recipe, expected one recipe and key=value settings"
        )
    return next(iter(recipes), None), [argument for argument in arguments if "=" in argument]


def models_and_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split MODEL... [KEY=VALUE]...; an existing path is a model.

    Run folders of an ablation have names such as `p_out=128`.
    """
    overrides = [
        argument for argument in arguments if "=" in argument and not Path(argument).exists()
    ]
    return [argument for argument in arguments if argument not in overrides], overrides


def command_line() -> str:
    """Return the command line as typed, for a result file."""
    return shlex.join(["seenet", *sys.argv[1:]])


def output(value: Any, text: str, *, as_json: bool, table: "RenderableType | None" = None) -> None:
    """Print a value as JSON, or a table of it and a text."""
    if as_json:
        print(json.dumps(value, indent=1, ensure_ascii=False))
        return
    if table is not None:
        # Not imported for `seenet --help`.
        from rich.console import Console

        Console().print(table)
    print(text)
