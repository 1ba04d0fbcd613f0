"""Settings and recipes: every one resolves, wrong ones are met at the door."""

from pathlib import Path

import pytest

from seenet.core.errors import DataError, UsageError
from seenet.core.recipe_files import dump, load_recipe, parse_recipe, recipe_names, stage_recipes
from seenet.model import create_model


def test_recipes_are_these() -> None:
    assert recipe_names() == [
        "camvid-drives", "camvid-lite0", "camvid-r101", "camvid-r50", "cityscapes-r101", "folder-lite0", "shapes", "shapes-ablation",
        "voc-r101-320", "voc-r101-512", "voc-r101-512-coco",
    ]  # fmt: skip


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_resolves_builds_and_reads_back(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description
    assert parse_recipe(dump(recipe), name, []) == recipe
    assert stage_recipes(parse_recipe(dump(recipe), name, [])) == stage_recipes(recipe)
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


# Sections 4.1 and 4.3 of the paper: data, steps, batch, rate and crop of each stage. COCO's length is ours.
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
    found = stage_recipes(load_recipe(name))
    assert [
        (
            stage,
            r.data.kind,
            r.data.train,
            r.training.steps,
            r.training.batch,
            r.optimizer.rate,
            r.transforms.crop[0],
        )
        for stage, r in found.items()
    ] == PAPER[name]
    assert [r.data.val for r in found.values()] == ["val"] * (len(found) - 1) + [None]


def test_settings_of_all_stages_and_of_one() -> None:
    def steps(*overrides: str) -> list[int]:
        return [
            stage.training.steps
            for stage in stage_recipes(load_recipe("voc-r101-512-coco", list(overrides))).values()
        ]

    assert steps("training.steps=7") == [7, 7, 7]
    assert steps("stages.coco.training.steps=5") == [5, 70000, 50000]
    assert steps("stages.coco.training.steps=5", "training.steps=7") == [5, 7, 7]
    assert steps("training={steps: 3, batch: 2}") == [3, 3, 3]
    roots = load_recipe("voc-r101-512-coco", ["stages.coco.data.root=c", "data.root=v"])
    assert [str(stage.data.root) for stage in stage_recipes(roots).values()] == ["c", "v", "v"]
    assert [
        stage.seed
        for stage in stage_recipes(
            load_recipe("voc-r101-512", ["seed=4", "stages.trainval.seed=5"])
        ).values()
    ] == [4, 5]
    assert "\nstages:" not in dump(load_recipe("shapes"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.coc.training.steps=3", "its stages: coco, trainaug, trainval"),
        ("stages.coco=3", r"expected stages\.NAME\.KEY=VALUE"),
        (
            "stages.coco.training.step=3",
            r"stages\.coco\.training\.step: unknown setting; nearest: steps",
        ),
        ("stages.coco.training.steps=0", r"stages\.coco\.training\.steps: found 0"),
        ("stages.coco.data.kind=camvid-drives", r"stages\.coco\.data: hold_out is missing"),
        ("stages.coco.seed={a: 1}", r"stages\.coco\.seed: found"),
        ("stages.trainaug.training.start_from=runs/x", "starts from the one before"),
        ("stages.coco.stages={a: {}}", "no stages of its own"),
        ("stages.coco.training=3", r"stages\.coco\.training: found 3"),
    ],
)
def test_wrong_settings_of_stages(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe("voc-r101-512-coco", [override])
    assert "\n" not in str(caught.value)


def test_stages_that_cannot_be(tmp_path: Path) -> None:
    common = "data: {kind: shapes}\ntransforms: {crop: 48}\ntraining: {steps: 1, batch: 1}\n"
    with pytest.raises(UsageError, match="this recipe has no stages"):
        load_recipe("shapes", ["stages.one.training.steps=3"])
    for text, message in {
        "{../out: {}}": "should match pattern",
        "{a.b: {}}": "should match pattern",
        "{a: 3}": "found 3",
        "[a]": "valid dictionary",
    }.items():
        with pytest.raises(UsageError, match=message):
            parse_recipe(f"{common}stages: {text}\n", "two.yaml", [])
