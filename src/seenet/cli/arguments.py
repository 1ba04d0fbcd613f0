"""Arguments that are read in the same way by several commands."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from seenet.core.errors import UsageError
from seenet.prediction.tiles import TileSize


def numbers(text: str, option: str) -> list[float]:
    """`0.75,1,1.25` -> [0.75, 1.0, 1.25]; UsageError names the option."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"{option} {text}: expected numbers with commas between, such as 0.75,1,1.25"
        ) from None


def whole_numbers(text: str, option: str) -> list[int]:
    """`1,3,5` -> [1, 3, 5]; UsageError names the option."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"{option} {text}: expected whole numbers with commas between, such as 1,3,5"
        ) from None


def tile_size(text: str) -> TileSize:
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
            f"{recipes[1]}: a second recipe, expected one and settings of the form key=value"
        )
    return next(iter(recipes), None), [argument for argument in arguments if "=" in argument]


def models_and_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split MODEL... [KEY=VALUE]...; a path that is there is a model (an ablation's runs are called `p_out=128`)."""
    overrides = [
        argument for argument in arguments if "=" in argument and not Path(argument).exists()
    ]
    return [argument for argument in arguments if argument not in overrides], overrides


def command_line() -> str:
    """What was typed, for a result file to quote."""
    return shlex.join(["seenet", *sys.argv[1:]])


def refuse_options(given: Mapping[str, object], why: str) -> None:
    """UsageError that names the first option of these that was given."""
    for option, value in given.items():
        if value:
            raise UsageError(f"{option}: {why}")
