"""`seenet probe`: every stage of a model, trained alike, in a folder that holds nothing else."""

import json
from pathlib import Path

import pytest

from seenet.core.errors import UsageError
from seenet.core.files import sha256
from seenet.core.recipe_files import dump, load_recipe
from seenet.data.shapes import SHAPES
from seenet.experiments.ablate import ablate
from seenet.experiments.plan import Plan
from seenet.experiments.probe import make_probe_plan
from seenet.experiments.results import collect_results, markdown
from seenet.model import create_model
from seenet.model.files import save_model
from tests.cli import commands
from tests.experiments.doubles import TINY, Trainings, pretend_trained, tiny_plan

STAGES = ["B2", "EB2", "B3", "B3+B2", "B3+EB2"]
OPTIONS = {
    "backbone": "resnet10t",
    "num_classes": SHAPES.num_classes,
    "width": 8,
    "p_out": 16,
    "output_stride": 16,
}


def save_run(folder: Path, variant: str = "seenet", *settings: str, **options: object) -> Path:
    """Write a run's model and recipe. The recipe's network is another one, which does not count."""
    folder.mkdir(parents=True, exist_ok=True)
    model = create_model(variant, **{**OPTIONS, **options})  # type: ignore[arg-type]
    save_model(folder / "model.safetensors", model, SHAPES)
    recipe = load_recipe("shapes", [*TINY, "model.width=64", *settings])
    (folder / "recipe.yaml").write_text(dump(recipe))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save_run(tmp_path / "run")


def make_plan(model: Path, *settings: str, **options: object) -> Plan:
    defaults = {"recipe": None, "out": None, "stages": None, "joint": False, "seeds": 1}
    return make_probe_plan(str(model), settings=settings, **{**defaults, **options})  # type: ignore[arg-type]


def test_stages_times_seeds_of_one_recipe(tmp_path: Path) -> None:
    settings = ["loss.auxiliary=0.4", "training.start_from=else.safetensors", "optimizer.rate=0.02"]
    run = save_run(tmp_path / "run", "seenet", *settings)
    plan = make_plan(run, "training.steps=7", seeds=2)
    assert [row.name for row in plan.rows] == STAGES
    assert plan.runs[-1].folder == run / "probe" / "B3+EB2-seed-1"
    recipes = [run.recipe for run in plan.runs]
    assert [(recipe.model.probe, recipe.seed) for recipe in recipes] == [
        (stage, seed) for seed in (0, 1) for stage in STAGES
    ]
    # Nothing but stage and seed differs.
    update = {"model": recipes[0].model, "seed": 0}
    assert all(recipe.model_copy(update=update) == recipes[0] for recipe in recipes)
    model, training = recipes[0].model, recipes[0].training
    assert (model.width, model.weights) == (8, str(run / "model.safetensors"))
    assert training.freeze_below and training.start_from is None and training.steps == 7
    assert (recipes[0].loss.auxiliary, recipes[0].optimizer.rate) == (0, 0.02)
    assert not (run / "probe").exists()


def test_costs_and_the_papers_numbers(tmp_path: Path, run: Path) -> None:
    c2, c3 = create_model("seenet", **OPTIONS).backbone.channels[1:3]  # type: ignore[arg-type]
    widths = [c2, c2 + 32, c3, c2 + c3, c2 + 32 + c3]
    classifier = 2 * 256 + 256 * SHAPES.num_classes + SHAPES.num_classes
    rows = make_plan(run).rows
    assert [row.parameters for row in rows] == [9 * width * 256 + classifier for width in widths]
    assert [row.paper and row.paper.miou for row in rows] == [50.1, 62.4, 69.4, 71.5, 73.5]
    (row,) = make_plan(save_run(tmp_path / "b", "baseline"), stages="B2").rows
    assert row.paper is None


@pytest.mark.parametrize("variant", ["baseline", "seem-fs", "torchvision-fcn"])
def test_models_without_an_enhanced_stage(tmp_path: Path, variant: str) -> None:
    run = save_run(tmp_path / "run", variant)
    assert [row.name for row in make_plan(run).rows] == ["B2", "B3", "B3+B2"]
    with pytest.raises(UsageError, match=rf"EB2: no .* \({variant}\); expected of B2, B3, B3\+B2$"):
        make_plan(run, stages="B2,EB2")


def test_where_results_go(tmp_path: Path, run: Path) -> None:
    assert make_plan(run, joint=True, stages="B3").out == run / "probe-joint"
    last = (run / "model.safetensors").rename(run / "model-last.safetensors")
    assert make_plan(last, stages="B3").out == run / "probe-model-last"
    alone = last.rename(tmp_path / "net.safetensors")
    found = make_plan(alone, *TINY[4:], recipe="shapes", stages="B3")
    assert found.out == Path("probes/net")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", "B4"], "no such stage"),
        (["--seeds", "0"], "expected at least 1"),
        (["model.width=4"], "a probe sets model.width itself"),
        (["loss.auxiliary=0.4"], "a probe sets loss.auxiliary itself"),
        (["seed=3"], "a probe sets seed itself"),
        (["data.val=null"], "data.val is null"),
        (["training.step=3"], "nearest: steps"),
    ],
)
def test_wrong_usage(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, err = commands.run(capsys, "probe", str(run), *arguments)
    assert code == 2 and message in err
    assert not (run / "probe").exists()


def test_networks_that_cannot_be_probed(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UsageError, match="a probe itself"):
        make_plan(save_run(tmp_path / "probe", probe="B3"))
    (run / "recipe.yaml").unlink()
    with pytest.raises(UsageError, match="belongs to no run whose recipe says how to train"):
        make_plan(run)


@pytest.mark.parametrize("setting", ["data.kind", "loss.function", "transforms.custom"])
def test_code_that_only_the_recipe_beside_a_model_names(tmp_path: Path, setting: str) -> None:
    run = save_run(tmp_path / "run", "seenet", f"{setting}=theirs.x:f")
    with pytest.raises(UsageError, match=rf"recipe\.yaml: {setting}=theirs\.x:f is code"):
        make_plan(run, "transforms.scale=[1, 1]", stages="B2")
    if setting == "transforms.custom":
        named = make_plan(run, recipe=run / "recipe.yaml", stages="B2")
        repeated = make_plan(run, f"{setting}=theirs.x:f", stages="B2")
        assert {plan.recipe.transforms.custom for plan in (named, repeated)} == {"theirs.x:f"}


def test_the_table_names_stage_mode_and_model(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(run, stages="B2,EB2", seeds=2)
    for each in plan.runs[:3]:
        pretend_trained(each, 0.5)
    line = ["probe", run, "--stages", "B2,EB2", "--seeds", "2", "--dry-run"]
    code, out, err = commands.run(capsys, *line)
    assert code == 0, err
    listed = ["B2-seed-0: finished", "EB2-seed-0: finished", "B2-seed-1: finished"]
    assert out.splitlines() == [*listed, "EB2-seed-1: not started", "3 of 4 runs finished"]
    result = collect_results(plan, {}, None)
    model = run / "model.safetensors"
    assert result["model"] == {"file": str(model), "sha256": sha256(model)}
    header, _, first, *rest = markdown(result).splitlines()[2:]
    assert header.startswith("| stage (frozen below) | ")
    assert first.startswith("| B2 | 50.00 | 0.00 | 2 of 2 |")
    assert first.endswith("| 50.1 (B2, resnet101) |")
    text = "\n".join(rest)
    assert "parameters: of the probe alone" in text and "joint:" not in text
    assert result["model"]["sha256"] in text


def test_a_folder_holds_one_kind_of_results(run: Path, trainings: Trainings) -> None:
    ablate(make_plan(run, stages="B2"), device="cpu")
    out = run / "probe"
    for other, message in (
        (make_plan(run, stages="B3", joint=True, out=out), r"unit was .* is now stage \(joint\)"),
        (tiny_plan(out, rows="c"), r"unit was stage \(frozen below\) and is now row"),
        (make_plan(run, "optimizer.rate=0.5", stages="B2"), r"optimizer\.rate was .* now 0\.5"),
    ):
        with pytest.raises(UsageError, match=message):
            ablate(other, device="cpu")
    save_run(run)  # other weights under the same name
    with pytest.raises(UsageError, match=r"results\.json: model was .* and is now"):
        ablate(make_plan(run, stages="B3"), device="cpu")
    assert len(trainings.started) == 1


@pytest.mark.slow
def test_probes_are_trained_scored_and_reported(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = ["--stages", "B2,B3+EB2", "--device", "cpu"]
    code, out, err = commands.run(capsys, "probe", str(run), *stages, "--json")
    assert code == 0, err
    assert [row["row"] for row in json.loads(out)["rows"]] == ["B2", "B3+EB2"]
    for name, folder in (("eval", "B2-seed-0"), ("report", "B3+EB2-seed-0")):
        code, _, err = commands.run(capsys, name, str(run / "probe" / folder), "--device", "cpu")
        assert code == 0, err
