"""Which runs a row stands for, and which of the paper's numbers stands beside it."""

import pytest

from seenet.core.errors import UsageError
from seenet.core.recipe_files import load_recipe
from seenet.experiments.rows import TABLE_1, paper_row, parse_rows


def names(rows: str | None, *settings: str) -> list[str]:
    return [row.name for row in parse_rows(rows, load_recipe("shapes", list(settings)))]


def test_letters_are_the_variants_on_the_recipes_backbone() -> None:
    assert names("c,d,e,f,g,h,i,j") == [
        "baseline", "pfp", "seem-fs", "pfp-seem", "pfp-seem-fs", "pfp-mixed", "pfp-mixed-bf", "seenet",
    ]  # fmt: skip
    assert names("a, b, c, d, j, seenet") == ["baseline", "pfp", "seenet"]


def test_a_and_b_are_resnet50s_beside_a_resnet101() -> None:
    recipe = load_recipe("shapes", ["model.backbone=resnet101", "model.weights=null"])
    rows = parse_rows("a,c", recipe)
    assert [row.name for row in rows] == ["baseline-resnet50", "baseline"]
    assert rows[0].settings == ("model.variant=baseline", "model.backbone=resnet50")
    with pytest.raises(UsageError, match="ResNet-101's"):
        parse_rows("a", load_recipe("shapes", ["model.backbone=resnet101", "model.weights=r101.safetensors"]))


def test_the_papers_number_is_that_of_its_backbone() -> None:
    assert {row.letter: row.miou for row in TABLE_1} == {
        "a": 70.9, "b": 72.7, "c": 74.9, "d": 75.7, "e": 75.9, "f": 76.9, "g": 77.5, "h": 77.4, "i": 77.7, "j": 78.1,
    }  # fmt: skip
    found = [paper_row("baseline", backbone) for backbone in ("resnet50", "resnet101", "tf_efficientnet_lite0")]
    assert [row.letter for row in found if row] == ["a", "c", "c"]
    assert paper_row("smp-fpn", "resnet101") is None


def test_peers_and_networks_of_the_users() -> None:
    assert names("seenet,smp-fpn,my.nets:unet") == ["seenet", "smp-fpn", "my.nets.unet"]
    assert names(None) == ["seenet"]
    assert names(None, "model.factory=my.nets:unet") == ["my.nets.unet"]


@pytest.mark.parametrize(("text", "message"), [("sennet", "nearest: seenet"), ("k", "letter a to j"), ("a,,b", "no such row")])
def test_unknown_rows(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_rows(text, load_recipe("shapes"))
