"""Recipes resolve, and wrong settings are refused."""

from pathlib import Path

import pytest

from seenet.core.errors import DataError, UsageError
from seenet.core.recipe_files import dump, load_recipe, parse_recipe, recipe_names, stage_recipes
from seenet.model import create_model


def test_all_recipes_are_listed() -> None:
    assert recipe_names() == [
        "camvid-drives", "camvid-lite0", "camvid-r101", "camvid-r50", "cityscapes-r101",
        "folder-lite0", "shapes", "shapes-ablation", "voc-r101-320", "voc-r101-512",
        "voc-r101-512-coco",
    ]  # fmt: skip


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_resolves_builds_and_reads_back(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description
    read = parse_recipe(dump(recipe), name, [])
    assert read == recipe and stage_recipes(read) == stage_recipes(recipe)
    create_model(**{**recipe.model.model_dump(), "weights": None}, num_classes=11)


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("shapes", ["training.step=3"], "nearest: steps"),
        ("shapes", ["trainin.steps=3"], "nearest: training"),
        ("shapes", ["steps=3"], r"nearest: training\.steps"),
        ("shapes", ["data.crop=3"], r"nearest: transforms\.crop"),
        ("shapes", ["training.steps=many"], "training.steps: found 'many'"),
        ("shapes", ["training.steps"], "key=value"),
        ("shapes", ["training.batch=5", "training.accumulate=2"], "batch"),
        ("shapes", ["data.hold_out=0001TP"], "camvid-drives"),
        ("shapes", ["data.kind=camvid"], "root"),
        ("shapes", ["transforms.scale=[2, 1]"], "scale"),
        ("shapes", ["training.ema=1.5"], "training.ema"),
        ("shapes", ["stages.one.training.steps=3"], "stages"),
        ("voc-r101-512-coco", ["stages.coc.training.steps=3"], "coco, trainaug, trainval"),
        ("voc-r101-512-coco", ["stages.coco=3"], r"stages\.NAME\.KEY=VALUE"),
        ("voc-r101-512-coco", ["stages.coco.training.step=3"], r"stages\.coco.*nearest: steps"),
        ("voc-r101-512-coco", ["stages.coco.training.steps=0"], r"stages\.coco.*found 0"),
        ("voc-r101-512-coco", ["stages.coco.data.kind=camvid-drives"], r"stages\.coco.*hold_out"),
        ("voc-r101-512-coco", ["stages.coco.seed={a: 1}"], r"stages\.coco\.seed"),
        ("voc-r101-512-coco", ["stages.trainaug.training.start_from=runs/x"], "start"),
        ("voc-r101-512-coco", ["stages.coco.stages={a: {}}"], "stages"),
        ("voc-r101-512-coco", ["stages.coco.training=3"], r"stages\.coco\.training"),
    ],
)
def test_wrong_settings_are_one_line(recipe: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(recipe, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("{../out: {}}", "pattern"),
        ("{a.b: {}}", "pattern"),
        ("{a: 3}", "found 3"),
        ("[a]", "dictionary"),
    ],
)
def test_wrong_stages(stages: str, message: str) -> None:
    sections = "data: {kind: shapes}\ntransforms: {crop: 48}\ntraining: {steps: 1, batch: 1}\n"
    with pytest.raises(UsageError, match=message):
        parse_recipe(f"{sections}stages: {stages}\n", "two.yaml", [])


def test_values_of_overrides() -> None:
    settings = load_recipe("shapes")
    assert load_recipe(settings) is settings
    assert load_recipe(settings, ["training.steps=7"]).training.steps == 7
    assert load_recipe("shapes", ["optimizer.rate=1e-3"]).optimizer.rate == 0.001
    assert load_recipe("camvid-drives", ["data.hold_out=0016E5"]).data.hold_out == "0016E5"
    assert load_recipe("shapes", ["transforms.crop=[32, 64]"]).transforms.crop == (32, 64)


def test_unknown_recipes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nearest: shapes"):
        load_recipe("shape")
    with pytest.raises(DataError, match=r"a\.yaml"):
        load_recipe(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("- 1\n")
    with pytest.raises(UsageError, match="list"):
        load_recipe(tmp_path / "b.yaml")


# Sections 4.1 and 4.3 of the paper: data, steps, batch, rate and crop of each stage. The paper does
# not give the length of COCO.
PAPER = {
    "voc-r101-320": [
        ("trainaug", "voc", "trainaug", 50000, 10, 0.001, 320),
        ("trainval", "voc", "trainaug+val", 50000, 10, 0.001, 320),
    ],
    "voc-r101-512": [
        ("trainaug", "voc", "trainaug", 70000, 8, 0.001, 512),
        ("trainval", "voc", "trainaug+val", 50000, 8, 0.001, 512),
    ],
    "voc-r101-512-coco": [
        ("coco", "coco", "train", 140000, 8, 0.001, 512),
        ("trainaug", "voc", "trainaug", 70000, 8, 0.001, 512),
        ("trainval", "voc", "trainaug+val", 50000, 8, 0.001, 512),
    ],
    "cityscapes-r101": [
        ("train", "cityscapes", "train", 90000, 8, 0.007, 768),
        ("trainval", "cityscapes", "trainval", 90000, 8, 0.001, 768),
    ],
}


@pytest.mark.parametrize("name", PAPER)
def test_stages_are_the_papers(name: str) -> None:
    stages = stage_recipes(load_recipe(name))
    found = []
    for stage, recipe in stages.items():
        data, training, crop = recipe.data, recipe.training, recipe.transforms.crop[0]
        settings = (training.steps, training.batch, recipe.optimizer.rate, crop)
        found.append((stage, data.kind, data.train, *settings))
    assert found == PAPER[name]
    vals = [recipe.data.val for recipe in stages.values()]
    assert vals == ["val"] * (len(vals) - 1) + [None]


def test_overrides_of_all_stages_and_of_one() -> None:
    def stages(*overrides: str) -> list:  # type: ignore[type-arg]
        return list(stage_recipes(load_recipe("voc-r101-512-coco", list(overrides))).values())

    one = "stages.coco.training.steps=5"
    for overrides, steps in (
        (["training.steps=7"], [7, 7, 7]),
        ([one], [5, 70000, 50000]),
        ([one, "training.steps=7"], [5, 7, 7]),
        (["training={steps: 3, batch: 2}"], [3, 3, 3]),
    ):
        assert [stage.training.steps for stage in stages(*overrides)] == steps
    found = stages("stages.coco.data.root=c", "data.root=v", "seed=4", "stages.trainval.seed=5")
    assert [str(stage.data.root) for stage in found] == ["c", "v", "v"]
    assert [stage.seed for stage in found] == [4, 4, 5]
    assert "\nstages:" not in dump(load_recipe("shapes"))
