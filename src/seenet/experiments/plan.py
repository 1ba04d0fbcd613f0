"""What an ablation (or a set of probes) consists of: every run, resolved and checked before the first one starts."""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from seenet.core.errors import UsageError
from seenet.core.files import digest
from seenet.core.recipe_files import load_recipe
from seenet.core.settings import Recipe
from seenet.data import open_split
from seenet.experiments.rows import LETTERS, PaperRow, Row, paper_row, parse_rows
from seenet.model import Segmenter, create_model
from seenet.model.summary import summarize

UNNAMED = {"seed": "--seeds", "model.variant": "--rows", "model.factory": "--rows"}
"""Settings that a row's name stands for already."""

PAPERS = {"model.variant", "model.backbone"}
"""Settings of the network that choose another row of the paper instead of leaving it."""


@dataclass(frozen=True)
class Cell:
    """A row at one point of the grid: what is compared. `flops` (at the crop's size) is None where a network of the user's hides them."""

    name: str
    settings: tuple[str, ...]
    paper: PaperRow | None
    parameters: int
    flops: int | None
    output_stride: int | None


@dataclass(frozen=True)
class Run:
    """One training: a cell with one seed, in the folder OUT/CELL-seed-N."""

    cell: Cell
    seed: int
    recipe: Recipe
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Plan:
    """All runs, cell by cell within each seed, so that whatever is there early compares all rows.

    `unit` is what a row is called, `rules` say what its numbers mean where that is not as in an ablation, and `about` is what all runs
    stand on: a folder belongs to one unit and one `about`.
    """

    out: Path
    recipe: Recipe
    cells: list[Cell]
    seeds: int
    runs: list[Run]
    reference: Cell
    unit: str = "row"
    rules: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


def make_plan(
    recipe: str | Path, settings: list[str], out: Path, *, rows: str | None, seeds: int, vary: list[str], reference: str | None
) -> Plan:
    """Resolve every run, build every network without memory, and open the data.

    Raises UsageError: unknown rows, settings, values or reference; DataError: data that is not there.
    """
    base = single(recipe, settings)
    check_comparable(base, seeds)
    points = [tuple(point) for point in product(*(parse_vary(text, rows is not None) for text in vary))]
    parsed = [(row, point) for row in parse_rows(rows, base) for point in points]
    recipes = {
        (place, seed): single(recipe, [*settings, *row.settings, *point, f"seed={seed}"])
        for place, (row, point) in enumerate(parsed)
        for seed in range(seeds)
    }
    classes = open_split(base.data, base.data.train).labels.num_classes
    cells = [_cell(row, point, recipes[place, 0], classes) for place, (row, point) in enumerate(parsed)]
    # Values that differ only in what no folder's name can hold.
    named = Counter(cell.name for cell in cells)
    cells = [replace(cell, name=f"{cell.name}-{digest(*cell.settings)[:6]}") if named[cell.name] > 1 else cell for cell in cells]
    runs = [
        Run(cell, seed, recipes[place, seed], out / f"{cell.name}-seed-{seed}") for seed in range(seeds) for place, cell in enumerate(cells)
    ]
    return Plan(out, base, cells, seeds, runs, _reference(cells, reference, base))


def check_comparable(recipe: Recipe, seeds: int) -> None:
    """UsageError where there would be no score, or no run, to compare."""
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: expected at least 1")
    if recipe.data.val is None:
        raise UsageError("data.val is null: scores on a val split are compared; name one")


def single(recipe: str | Path, settings: list[str]) -> Recipe:
    """A recipe without its stages: one training is compared."""
    return load_recipe(recipe, settings).model_copy(update={"stages": {}})


def parse_vary(text: str, has_rows: bool) -> list[str]:
    """`model.p_out=128,256` -> [`model.p_out=128`, `model.p_out=256`]; commas inside brackets do not divide."""
    key, equals, values = text.partition("=")
    found = [value.strip() for value in re.findall(r"(?:\[[^\]]*\]|[^,\[])+", values)]
    if not equals or not all(found) or not found:
        raise UsageError(f"--vary {text}: expected key=value,value,..., for example model.p_out=128,256")
    if key in UNNAMED and (has_rows or key == "seed"):
        raise UsageError(f"--vary {key}: use {UNNAMED[key]}")
    return [f"{key}={value}" for value in dict.fromkeys(found)]


def _cell(row: Row, point: tuple[str, ...], recipe: Recipe, classes: int) -> Cell:
    name = "-".join([row.name, *map(_short, point)])
    parameters, flops, output_stride = _cost(recipe, classes)
    # With another width or stride than the paper's it is another network than the paper measured.
    own = all(key in PAPERS or key.partition(".")[0] != "model" for key in (setting.partition("=")[0] for setting in point))
    paper = paper_row(recipe.model.variant, recipe.model.backbone) if own else None
    return Cell(name, (*row.settings, *point), paper, parameters, flops, output_stride)


def _short(setting: str) -> str:
    """`model.p_out=128` -> `p_out=128`, fit for a folder's name."""
    key, _, value = setting.partition("=")
    return re.sub(r"[^\w.=-]+", "_", f"{key.rpartition('.')[2]}={value}").strip("_")


def _cost(recipe: Recipe, classes: int) -> tuple[int, int | None, int | None]:
    """Parameters, FLOPs at the crop's size and output stride of what predicts; the auxiliary head does not."""
    model = unfilled(recipe, classes)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    stride = model.options.get("output_stride")
    try:
        return parameters, sum(part.flops for part in summarize(model, *recipe.transforms.crop)), stride
    except Exception:
        if recipe.model.factory is None:
            raise
        return parameters, None, stride  # the user's network computes something that needs real numbers


def unfilled(recipe: Recipe, classes: int) -> Segmenter:
    """The recipe's network without weights or the memory for them (a network of the user's own has both)."""
    # The user's own code may want real numbers already when it builds.
    with _quiet(), nullcontext() if recipe.model.factory else torch.device("meta"):
        return create_model(**{**recipe.model.model_dump(), "weights": None, "num_classes": classes})


@contextmanager
def _quiet() -> Iterator[None]:
    """These networks are only counted: that their weights are random is no news."""
    log = logging.getLogger("seenet")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _reference(cells: list[Cell], name: str | None, base: Recipe) -> Cell:
    if name is None:
        return cells[0]
    if name in LETTERS:
        name = parse_rows(name, base)[0].name
    named = {cell.name: cell for cell in cells}
    if name not in named:
        raise UsageError(f"--reference {name}: not among the rows; expected one of {', '.join(named)}")
    return named[name]
