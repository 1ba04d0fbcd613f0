"""Rows, grids and seeds are resolved before the first run; the paper's numbers are beside them."""

from pathlib import Path

import pytest

from seenet.core.errors import DataError, UsageError
from seenet.core.recipe_files import dump, load_recipe
from seenet.data.shapes import SHAPES
from seenet.experiments.ablate import check_folder
from seenet.experiments.plan import TABLE_1, parse_rows, parse_vary
from seenet.model import create_model
from tests.experiments.doubles import tiny_plan


def test_rows_times_grid_times_seeds(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, vary=["model.width=8,16", "training.ema=null,0.9"])
    assert len({run.folder for run in plan.runs}) == len(plan.runs) == 2 * 4 * 2
    assert plan.runs[0].name == "baseline-width=8-ema=null-seed-0"
    last = plan.runs[-1]
    assert last.name == "seenet-width=16-ema=0.9-seed-1"
    model = last.recipe.model
    assert (model.variant, model.width, last.recipe.seed) == ("seenet", 16, 1)
    assert last.recipe.training.ema == 0.9
    assert not list(tmp_path.iterdir())


def test_values_with_one_folder_name_have_folders_of_their_own(tmp_path: Path) -> None:
    def names(values: str) -> list[str]:
        plan = tiny_plan(tmp_path, rows="c", seeds=1, vary=[f"description={values}"])
        return [run.name for run in plan.runs]

    slash, underscore, plain = names("a/1,a_1,b")
    assert slash != underscore and plain == "baseline-description=b-seed-0"
    assert {slash[:24], underscore[:24]} == {"baseline-description=a_1"}
    assert names("a_1,a/1") == [underscore, slash]


@pytest.mark.parametrize("name", ["results.json", "table.md", "plot.png"])
def test_the_users_own_files_are_not_replaced(tmp_path: Path, name: str) -> None:
    plan = tiny_plan(tmp_path, rows="c", seeds=1)
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(DataError, match=rf"{name}: exists already"):
        check_folder(plan)
    (tmp_path / "results.json").write_text('{"unit": "row", "rows": []}')
    check_folder(plan)


def test_a_recipe_with_stages_is_one_training(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    two_stages = "stages: {one: {}, two: {data: {val: null}}}\n"
    path.write_text(dump(load_recipe("shapes")) + two_stages)
    assert load_recipe(path).stages
    plan = tiny_plan(tmp_path / "out", recipe=path, rows="c")
    assert not any(run.recipe.stages for run in plan.runs)


def test_costs_are_the_networks(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, rows="j,smp-fpn")
    network = create_model(
        backbone="resnet10t", width=8, p_out=16, output_stride=16, num_classes=SHAPES.num_classes
    )
    assert plan.rows[0].parameters == sum(part.numel() for part in network.parameters())
    assert [row.output_stride for row in plan.rows] == [16, 32]
    assert all(row.flops for row in plan.rows)


@pytest.mark.parametrize(
    ("row", "vary", "letters"),
    [
        ("j", "model.p_out=16,32", [None, None]),
        ("j", "model.refine_stride=4", [None]),
        ("j", "model={width: 8}", [None]),
        ("j", "optimizer.rate=0.1,0.2", ["j", "j"]),
        ("baseline", "model.backbone=resnet10t,resnet50,resnet101", ["c", "a", "c"]),
        ("smp-fpn", "optimizer.rate=0.1", [None]),
    ],
)
def test_the_papers_number_stands_beside_the_papers_networks_alone(
    tmp_path: Path, row: str, vary: str, letters: list[str | None]
) -> None:
    rows = tiny_plan(tmp_path, rows=row, vary=[vary]).rows
    assert [row.paper and row.paper.letter for row in rows] == letters


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("p=128, 256,auto", ["p=128", "p=256", "p=auto"]),
        ("scale=[0.5, 2],[1,1]", ["scale=[0.5, 2]", "scale=[1,1]"]),
    ],
)
def test_values_are_split_by_commas_outside_brackets(text: str, values: list[str]) -> None:
    assert parse_vary(text, True) == values


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vary": ["model.pout=128,256"]}, "nearest: p_out"),
        ({"vary": ["model.refine_stride=4,5"]}, r"model\.refine_stride"),
        ({"vary": ["model.backbone=resnet10t,resnet10x"]}, "unknown to timm"),
        ({"vary": ["model.p_out"]}, "expected key=value,value"),
        ({"vary": ["model.p_out="]}, "expected key=value,value"),
        ({"vary": ["seed=1,2"]}, "use --seeds"),
        ({"vary": ["model.variant=pfp,seenet"]}, "use --rows"),
        ({"seeds": 0}, "expected at least 1"),
        ({"settings": ["data.val=null"]}, r"data\.val is null"),
        ({"reference": "pfp"}, "not among the rows"),
        ({"rows": "sennet"}, "nearest: seenet"),
        ({"rows": "k"}, "letter a to j"),
        ({"rows": "a,,b"}, "no such row"),
        ({"rows": "smp-deeplabv3plus", "vary": ["model.output_stride=16,32"]}, "takes 8 or 16"),
        ({"rows": "no.such.module:net"}, "cannot be imported"),
    ],
)
def test_a_wrong_plan_is_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tiny_plan(tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("reference", "name"),
    [(None, "baseline"), ("a", "baseline"), ("j", "seenet"), ("seenet", "seenet")],
)
def test_reference_by_name_or_letter(tmp_path: Path, reference: str | None, name: str) -> None:
    assert tiny_plan(tmp_path, reference=reference).reference.name == name


@pytest.mark.parametrize(
    ("rows", "settings", "names"),
    [
        ("c,d,e,f,g", [], ["baseline", "pfp", "seem-fs", "pfp-seem", "pfp-seem-fs"]),
        ("h,i,j", [], ["pfp-mixed", "pfp-mixed-bf", "seenet"]),
        ("a, b, c, d, j, seenet", [], ["baseline", "pfp", "seenet"]),
        ("seenet,smp-fpn,my.nets:unet", [], ["seenet", "smp-fpn", "my.nets.unet"]),
        (None, [], ["seenet"]),
        (None, ["model.factory=my.nets:unet"], ["my.nets.unet"]),
    ],
)
def test_names_of_rows(rows: str | None, settings: list[str], names: list[str]) -> None:
    assert list(parse_rows(rows, load_recipe("shapes", settings))) == names


def test_a_and_b_are_resnet50s_beside_a_resnet101() -> None:
    settings = ["model.backbone=resnet101", "model.weights=null"]
    rows = parse_rows("a,c", load_recipe("shapes", settings))
    assert list(rows) == ["baseline-resnet50", "baseline"]
    assert rows["baseline-resnet50"] == ("model.variant=baseline", "model.backbone=resnet50")
    settings[1] = "model.weights=r101.safetensors"
    with pytest.raises(UsageError, match="ResNet-101's"):
        parse_rows("a", load_recipe("shapes", settings))


def test_the_papers_numbers() -> None:
    assert "".join(row.letter for row in TABLE_1) == "abcdefghij"
    mious = [70.9, 72.7, 74.9, 75.7, 75.9, 76.9, 77.5, 77.4, 77.7, 78.1]
    assert [row.miou for row in TABLE_1] == mious
