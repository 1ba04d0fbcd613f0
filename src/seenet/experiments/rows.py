"""The rows of an ablation: Table 1 by letter, its variants and peers by name, networks of the user's own by `package.module:callable`."""

import re
from dataclasses import dataclass

from seenet.core.errors import UsageError, nearest
from seenet.core.settings import Recipe
from seenet.model import PEERS, VARIANTS


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's Table 1 by letter, or a stage of its Table 2: mIoU in percent on VOC 2012 val, crop 320, 50,000 iterations on
    10,582 images.
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
    """What distinguishes a row from the recipe, and its name in tables and folders."""

    name: str
    settings: tuple[str, ...]


def parse_rows(text: str | None, recipe: Recipe) -> list[Row]:
    """Rows by comma; None: the recipe's own network alone.

    A letter is the paper's row on the recipe's backbone. Rows a and b are the paper's c and d on a ResNet-50: they are that where the
    recipe has the paper's ResNet-101, and the same rows as c and d otherwise. A row named twice is one row.

    Raises UsageError: a name that is neither, with the nearest ones.
    """
    if text is None:
        return [_own(recipe)]
    names = [name.strip() for name in text.split(",")]
    rows = [_row(name, recipe) for name in names]
    return list({row.name: row for row in reversed(rows)}.values())[::-1]


def _own(recipe: Recipe) -> Row:
    return Row(_safe(recipe.model.factory) if recipe.model.factory else recipe.model.variant, ())


def _row(name: str, recipe: Recipe) -> Row:
    if ":" in name:
        return Row(_safe(name), ("model.variant=factory", f"model.factory={name}", "model.weights=null"))
    variant = LETTERS[name].variant if name in LETTERS else name
    if variant not in (*VARIANTS, *PEERS):
        choices = (*VARIANTS, *PEERS)
        raise UsageError(f"--rows {name}: no such row; {nearest(name, choices)}, a letter a to j of Table 1, or package.module:callable")
    settings = [f"model.variant={variant}"]
    if recipe.model.factory:
        settings.append("model.factory=null")
    if name in LETTERS and recipe.model.backbone == "resnet101" != LETTERS[name].backbone:
        if recipe.model.weights not in (None, "imagenet"):
            raise UsageError(
                f"--rows {name}: stands on a ResNet-50 in the paper, but model.weights={recipe.model.weights} are a ResNet-101's; "
                "leave a and b out, or use model.weights=imagenet"
            )
        return Row(f"{variant}-resnet50", (*settings, "model.backbone=resnet50"))
    return Row(variant, tuple(settings))


def paper_row(variant: str, backbone: str) -> PaperRow | None:
    """The paper's row of a variant, the one on this backbone where it has two; None for what is not the paper's."""
    found = [row for row in TABLE_1 if row.variant == variant]
    return next((row for row in found if row.backbone == backbone), found[-1] if found else None)


def _safe(name: str) -> str:
    """As the name of a folder."""
    return re.sub(r"[^\w.-]+", ".", name)
