"""Settings and recipes: every one resolves, wrong ones are met at the door."""

from pathlib import Path

import pytest

from seenet.core.errors import DataError, UsageError
from seenet.core.recipe_files import dump, load_recipe, parse_recipe, recipe_names
from seenet.model import create_model


def test_recipes_are_these() -> None:
    assert recipe_names() == [
        "camvid-drives", "camvid-lite0", "camvid-r101", "camvid-r50", "cityscapes-r101", "folder-lite0", "shapes", "shapes-ablation",
        "voc-r101-320", "voc-r101-512",
    ]  # fmt: skip


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_resolves_builds_and_reads_back(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description
    assert parse_recipe(dump(recipe), name, []) == recipe
    create_model(**{**recipe.model.model_dump(), "weights": None}, num_classes=11)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.step=3", "nearest: steps"),
        ("trainin.steps=3", "nearest: training"),
        ("steps=3", r"nearest: training\.steps"),
        ("data.crop=3", r"nearest: transforms\.crop"),
        ("training.steps=many", "training.steps: found 'many'"),
        ("training.steps", "expected key=value"),
        ("training.batch=5", "not divide into"),
        ("data.hold_out=0001TP", "belongs to camvid-drives"),
        ("data.kind=camvid", "root is missing"),
        ("transforms.scale=[2, 1]", "expected 0 < low"),
        ("training.ema=1.5", "training.ema"),
    ],
)
def test_wrong_settings(override: str, message: str) -> None:
    overrides = [override] + (["training.accumulate=2"] if "batch" in override else [])
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe("shapes", overrides)
    assert "\n" not in str(caught.value)


def test_numbers_as_people_write_them() -> None:
    assert load_recipe("shapes", ["optimizer.rate=1e-3"]).optimizer.rate == 0.001
    assert load_recipe("camvid-drives", ["data.hold_out=0016E5"]).data.hold_out == "0016E5"
    assert load_recipe("shapes", ["transforms.crop=[32, 64]"]).transforms.crop == (32, 64)


def test_unknown_recipes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nearest: shapes"):
        load_recipe("shape")
    with pytest.raises(DataError, match="no such recipe file"):
        load_recipe(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("- 1\n")
    with pytest.raises(UsageError, match="found list, expected a mapping"):
        load_recipe(tmp_path / "b.yaml")
