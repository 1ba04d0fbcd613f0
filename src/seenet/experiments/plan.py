"""The plan of an ablation: its rows with their resolved recipes, and its runs.

A row is a row of Table 1 by its letter, a variant or a peer by its name, or a network of the user's
own by `package.module:callable`.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch

from seenet.core.errors import UsageError, nearest
from seenet.core.files import digest
from seenet.core.recipe_files import load_recipe
from seenet.core.settings import ModelSettings, Recipe
from seenet.data import open_split
from seenet.model import PEERS, VARIANTS, StageProbe, create_model
from seenet.model.summary import summarize
from seenet.training.logging import read_metrics

OWN_OPTIONS = {"seed": "--seeds", "model.variant": "--rows", "model.factory": "--rows"}
"""Settings that an option of the command sets."""
PAPERS_SETTINGS = {"model.variant", "model.backbone", "model.factory"}
"""Settings of the network in which the paper's rows differ; no factory makes those."""


@dataclass(frozen=True)
class PaperRow:
    """Row of the paper's Table 1 by its letter, or stage of its Table 2 by its name.

    The mIoU is in percent, on VOC 2012 val, at crop 320, after 50,000 iterations on 10,582 images.
    """

    letter: str
    variant: str
    backbone: str
    miou: float


TABLE_1 = (
    PaperRow("a", "baseline", "resnet50", 70.9),
    PaperRow("b", "pfp", "resnet50", 72.7),
    PaperRow("c", "baseline", "resnet101", 74.9),
    PaperRow("d", "pfp", "resnet101", 75.7),
    PaperRow("e", "seem-fs", "resnet101", 75.9),
    PaperRow("f", "pfp-seem", "resnet101", 76.9),
    PaperRow("g", "pfp-seem-fs", "resnet101", 77.5),
    PaperRow("h", "pfp-mixed", "resnet101", 77.4),
    PaperRow("i", "pfp-mixed-bf", "resnet101", 77.7),
    PaperRow("j", "seenet", "resnet101", 78.1),
)
LETTERS = {row.letter: row for row in TABLE_1}


@dataclass(frozen=True)
class Row:
    """Network and settings that are compared with others, trained with every seed."""

    name: str
    settings: tuple[str, ...]
    """Settings by which it differs from the plan's recipe, as `key=value`."""
    recipe: Recipe
    paper: PaperRow | None
    parameters: int
    flops: int | None
    """Of one image of the crop's size; None where a network of the user's own defies counting."""
    output_stride: int | None


@dataclass(frozen=True)
class Run:
    """Training of a row with one seed, in the folder OUT/ROW-seed-N."""

    row: Row
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def recipe(self) -> Recipe:
        return self.row.recipe.model_copy(update={"seed": self.seed})

    def result(self) -> dict[str, Any] | None:
        """Return the content of val.json if the run has finished with a model and a score."""
        result = read_json(self.folder / "val.json")
        finished = (
            read_json(self.folder / "exit.json").get("0", {}).get("code") == 0
            and (self.folder / "model.safetensors").is_file()
            and isinstance(result.get("miou"), float)
        )
        return result if finished else None

    def state(self) -> str:
        """Return `finished`, `started, N of M steps` or `not started`."""
        if self.result() is not None:
            return "finished"
        steps = [entry["step"] for entry in read_metrics(self.folder / "metrics.jsonl")]
        if steps or (self.folder / "recipe.yaml").is_file():
            return f"started, {max(steps, default=0)} of {self.recipe.training.steps} steps"
        return "not started"


@dataclass(frozen=True)
class Plan:
    """Rows of an ablation, each trained with the seeds 0, 1, ..."""

    out: Path
    recipe: Recipe
    rows: list[Row]
    seeds: int
    reference: Row
    """The row that the others are compared with."""
    unit: str = "row"
    """Name of a row in the table."""
    rules: dict[str, str] = field(default_factory=dict)
    """Explanations of the numbers that differ from an ablation's, by the number's name."""
    about: dict[str, Any] = field(default_factory=dict)
    """Things that all runs start from, such as a model. A folder has one `unit` and one `about`."""

    @property
    def runs(self) -> list[Run]:
        """Return the runs, all rows with the first seed before any with the second."""
        return [
            Run(row, seed, self.out / f"{row.name}-seed-{seed}")
            for seed in range(self.seeds)
            for row in self.rows
        ]


def make_plan(
    recipe: str | Path,
    settings: list[str],
    out: Path,
    *,
    rows: str | None,
    seeds: int,
    vary: list[str],
    reference: str | None,
) -> Plan:
    """Resolve every row and build every network, without memory for its weights.

    Args:
        recipe: name or file; the stages of a recipe with stages are left out.
        settings: `key=value` for all runs.
        out: folder of the runs and results.
        rows: names with commas between, as for `parse_rows`.
        seeds: number of runs of each row.
        vary: texts as for `parse_vary`; each combination of their values makes a row of its own.
        reference: name or letter of the row to compare with; None: the first.

    Raises:
        UsageError: unknown row, setting, value or reference.
        DataError: the data is missing.
    """
    base = load_without_stages(recipe, settings)
    num_classes = check_comparable(base, seeds)
    points = list(product(*(parse_vary(text, rows is not None) for text in vary)))
    grid = [
        ("-".join([name, *map(_short, point)]), (*network, *point))
        for name, network in parse_rows(rows, base).items()
        for point in points
    ]
    # Two values may differ only in characters that a folder's name cannot hold.
    counts = Counter(name for name, _ in grid)
    compared = {}
    for name, own in grid:
        unique = name if counts[name] == 1 else f"{name}-{digest(*own)[:6]}"
        resolved = load_without_stages(recipe, [*settings, *own])
        paper = paper_row(resolved.model, own)
        compared[unique] = make_row(unique, own, resolved, paper, num_classes)
    if reference in LETTERS:
        (reference,) = parse_rows(reference, base)
    reference = reference or next(iter(compared))
    if reference not in compared:
        raise UsageError(
            f"--reference {reference}: not among the rows; expected one of {', '.join(compared)}"
        )
    return Plan(out, base, list(compared.values()), seeds, compared[reference])


def check_comparable(recipe: Recipe, seeds: int) -> int:
    """Return the number of classes; UsageError where runs would have no score to compare."""
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: expected at least 1")
    if recipe.data.val is None:
        raise UsageError("data.val is null: scores on a val split are compared; name one")
    return open_split(recipe.data, recipe.data.train).labels.num_classes


def load_without_stages(recipe: str | Path, settings: list[str]) -> Recipe:
    """Load a recipe as one training, without its stages."""
    return load_recipe(recipe, settings).model_copy(update={"stages": {}})


def parse_vary(text: str, has_rows: bool) -> list[str]:
    """Split `model.p_out=128,256` into `model.p_out=128` and `model.p_out=256`.

    Commas inside brackets belong to a value. With `has_rows` the rows choose the network.
    """
    key, equals, values = text.partition("=")
    found = [value.strip() for value in re.findall(r"(?:\[[^\]]*\]|[^,\[])+", values)]
    if not equals or not all(found) or not found:
        raise UsageError(
            f"--vary {text}: expected key=value,value,..., for example model.p_out=128,256"
        )
    if key in OWN_OPTIONS and (has_rows or key == "seed"):
        raise UsageError(f"--vary {key}: use {OWN_OPTIONS[key]}")
    return [f"{key}={value}" for value in dict.fromkeys(found)]


def parse_rows(text: str | None, recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Return the settings of each row by its name; `text` has the rows with commas between.

    A letter is the paper's row on the recipe's backbone. The paper's rows a and b are its rows c
    and d on a ResNet-50. They are rows of their own where the recipe has the paper's ResNet-101,
    and the same as c and d otherwise. None is the recipe's own network alone.

    Raises:
        UsageError: no such row.
    """
    if text is None:
        factory = recipe.model.factory
        return {_folder_name(factory) if factory else recipe.model.variant: ()}
    return dict(_parse_row(name.strip(), recipe) for name in text.split(","))


def _parse_row(name: str, recipe: Recipe) -> tuple[str, tuple[str, ...]]:
    if ":" in name:
        network = ("model.variant=factory", f"model.factory={name}", "model.weights=null")
        return _folder_name(name), network
    paper = LETTERS.get(name)
    variant = paper.variant if paper else name
    known = (*VARIANTS, *PEERS)
    if variant not in known:
        raise UsageError(
            f"--rows {name}: no such row; {nearest(name, known)}, a letter a to j of Table 1, "
            "or package.module:callable"
        )
    of_table = ["model.factory=null"] if recipe.model.factory else []
    settings = (f"model.variant={variant}", *of_table)
    if paper and recipe.model.backbone == "resnet101" != paper.backbone:
        weights = recipe.model.weights
        if weights not in (None, "imagenet"):
            raise UsageError(
                f"--rows {name}: a ResNet-50 in the paper, but model.weights={weights} are a "
                "ResNet-101's; leave a and b out, or use model.weights=imagenet"
            )
        return f"{variant}-resnet50", (*settings, "model.backbone=resnet50")
    return variant, settings


def paper_row(model: ModelSettings, settings: Sequence[str]) -> PaperRow | None:
    """Return the paper's row of a variant, on this backbone where the paper has two.

    It is None where `settings` make a network that the paper did not measure.
    """
    keys = {setting.partition("=")[0] for setting in settings} - PAPERS_SETTINGS
    if any(key.startswith("model") for key in keys):
        return None
    rows = [row for row in TABLE_1 if row.variant == model.variant]
    return next((row for row in rows if row.backbone == model.backbone), rows[-1] if rows else None)


def _folder_name(factory: str) -> str:
    return re.sub(r"[^\w.-]+", ".", factory)


def _short(setting: str) -> str:
    """Shorten `model.p_out=128` to `p_out=128`, without characters that a folder cannot have."""
    return re.sub(r"[^\w.=-]+", "_", re.sub(r"^[^=]*\.", "", setting)).strip("_")


def make_row(
    name: str,
    settings: tuple[str, ...],
    recipe: Recipe,
    paper: PaperRow | None,
    num_classes: int,
) -> Row:
    """Build the recipe's network without weights, and make a row with its costs.

    The parameters are those of what predicts, the network without its auxiliary head; of a probe
    those of its own head.
    """
    log = logging.getLogger("seenet")
    level = log.level
    log.setLevel(logging.WARNING)  # that its weights are random does not matter here
    options = {**recipe.model.model_dump(), "weights": None, "num_classes": num_classes}
    try:
        # The code of a network of the user's own may need real numbers when it is built.
        with nullcontext() if recipe.model.factory else torch.device("meta"):
            model = create_model(**options)
    finally:
        log.setLevel(level)
    flops: int | None = None
    # And it may compute something that needs them.
    with suppress(Exception) if recipe.model.factory else nullcontext():
        flops = sum(part.flops for part in summarize(model, *recipe.transforms.crop))
    predicting = model.head if isinstance(model, StageProbe) else model
    parameters = sum(parameter.numel() for parameter in predicting.parameters())
    return Row(name, settings, recipe, paper, parameters, flops, model.options.get("output_stride"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; return an empty one where the file is missing or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
