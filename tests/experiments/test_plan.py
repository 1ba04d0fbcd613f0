"""Every run is known, resolved and priced before the first one starts; rows, and the paper's numbers beside them."""

from pathlib import Path

import pytest

from seenet.core.errors import DataError, UsageError
from seenet.core.recipe_files import load_recipe
from seenet.data.shapes import ShapesSplit
from seenet.experiments.ablate import check_folder
from seenet.experiments.plan import TABLE_1, make_plan, paper_row, parse_rows, parse_vary
from seenet.model import create_model
from tests.experiments.doubles import TINY, tiny_plan


def test_rows_times_grid_times_seeds(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, rows="c,j", seeds=2, vary=["model.width=8,16", "training.ema=null,0.9"])
    assert len(plan.runs) == 2 * 4 * 2
    assert plan.runs[0].name == "baseline-width=8-ema=null-seed-0"
    last = plan.runs[-1]
    assert last.name == "seenet-width=16-ema=0.9-seed-1"
    assert (last.recipe.model.variant, last.recipe.model.width, last.recipe.training.ema, last.recipe.seed) == ("seenet", 16, 0.9, 1)
    assert len({run.folder for run in plan.runs}) == 16
    assert not list(tmp_path.iterdir())


def test_values_that_no_name_tells_apart_have_folders_of_their_own(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, rows="c", seeds=1, vary=["description=a/1,a_1,b"])
    names = [run.name for run in plan.runs]
    assert len(set(names)) == 3 and names[2] == "baseline-description=b-seed-0"
    assert all(name.startswith("baseline-description=a_1-") for name in names[:2])
    assert [run.name for run in tiny_plan(tmp_path, rows="c", seeds=1, vary=["description=a_1,a/1"]).runs] == [names[1], names[0]]


@pytest.mark.parametrize("name", ["results.json", "table.md", "plot.png"])
def test_files_of_ones_own_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(DataError, match=rf"{name}: exists already"):
        check_folder(tiny_plan(tmp_path, rows="c", seeds=1))
    (tmp_path / name).unlink()
    (tmp_path / "results.json").write_text('{"unit": "row", "rows": []}')
    (tmp_path / "table.md").write_text("")
    check_folder(tiny_plan(tmp_path, rows="c", seeds=1))


def test_one_training_of_a_recipe_with_stages_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(
        "data: {kind: shapes, size: 48, count: 20}\nmodel: {backbone: resnet10t}\ntransforms: {crop: 48}\n"
        "training: {steps: 1, batch: 2}\nstages: {one: {}, two: {data: {val: null}}}\n"
    )
    plan = make_plan(path, TINY, tmp_path / "out", rows="c", seeds=2, vary=[], reference=None)
    assert len(plan.runs) == 2
    assert not any(run.recipe.stages for run in plan.runs)


def test_costs_are_the_networks(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, rows="j,smp-fpn")
    ours = create_model(
        "seenet", backbone="resnet10t", width=8, p_out=16, output_stride=16, num_classes=ShapesSplit("val", 50, 48).labels.num_classes
    )
    assert plan.cells[0].parameters == sum(parameter.numel() for parameter in ours.parameters())
    assert [cell.output_stride for cell in plan.cells] == [16, 32]
    assert all(cell.flops for cell in plan.cells)


def test_the_papers_number_follows_a_varied_backbone(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, rows="baseline", vary=["model.backbone=resnet10t,resnet50"])
    assert [cell.paper.letter for cell in plan.cells if cell.paper] == ["c", "a"]


@pytest.mark.parametrize(
    ("vary", "letters"),
    [
        (["model.p_out=16,32"], []),
        (["model.backbone=resnet10t", "model.refine_stride=4"], []),
        (["model={width: 8}"], []),
        (["optimizer.rate=0.1,0.2"], ["j", "j"]),
    ],
)
def test_the_papers_number_stands_beside_the_papers_network_alone(tmp_path: Path, vary: list[str], letters: list[str]) -> None:
    assert [cell.paper.letter for cell in tiny_plan(tmp_path, rows="j", vary=vary).cells if cell.paper] == letters


def test_values_by_comma_outside_brackets() -> None:
    assert parse_vary("model.p_out=128, 256,auto", True) == ["model.p_out=128", "model.p_out=256", "model.p_out=auto"]
    assert parse_vary("transforms.scale=[0.5, 2],[1,1]", True) == ["transforms.scale=[0.5, 2]", "transforms.scale=[1,1]"]


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
        ({"reference": "pfp"}, "not among the rows"),
        ({"rows": "j,smp-deeplabv3plus", "vary": ["model.output_stride=16,32"]}, "smp-deeplabv3plus takes 8 or 16"),
        ({"rows": "no.such.module:net"}, "cannot be imported"),
    ],
)
def test_wrong_plans_are_met_at_the_door(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tiny_plan(tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_run_without_validation_has_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.val is null"):
        make_plan("shapes", [*TINY, "data.val=null"], tmp_path, rows=None, seeds=1, vary=[], reference=None)


def test_reference_by_name_or_letter(tmp_path: Path) -> None:
    assert tiny_plan(tmp_path).reference.name == tiny_plan(tmp_path, reference="a").reference.name == "baseline"
    assert tiny_plan(tmp_path, reference="j").reference.name == tiny_plan(tmp_path, reference="seenet").reference.name == "seenet"


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
