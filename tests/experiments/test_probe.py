"""`seenet probe`: every stage that a model has, trained alike, in a folder that holds nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seenet.cli import main
from seenet.core.errors import UsageError
from seenet.core.files import sha256
from seenet.core.recipe_files import dump, load_recipe
from seenet.data.shapes import SHAPES
from seenet.experiments import ablate as module
from seenet.experiments.plan import Plan
from seenet.experiments.probe import make_probe_plan
from seenet.model import create_model
from seenet.model.files import save_model
from tests.experiments.doubles import TINY, pretend_trained, tiny_plan
from tests.experiments.test_ablate import Trainings, use

OPTIONS = {
    "backbone": "resnet10t",
    "num_classes": SHAPES.num_classes,
    "width": 8,
    "p_out": 16,
    "output_stride": 16,
}


def source(folder: Path, variant: str = "seenet", *settings: str, **options: object) -> Path:
    """A run's folder as far as probes look at it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(
        folder / "model.safetensors", create_model(variant, **{**OPTIONS, **options}), SHAPES
    )  # type: ignore[arg-type]
    # The recipe's network is another one: what was built counts.
    (folder / "recipe.yaml").write_text(
        dump(load_recipe("shapes", [*TINY, "model.width=64", *settings]))
    )
    return folder


def plan(run: Path, *settings: str, **options: object) -> Plan:
    return make_probe_plan(
        str(run),
        None,
        settings,
        **{"out": None, "stages": None, "joint": False, "seeds": 1, **options},
    )  # type: ignore[arg-type]


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["probe", *arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_stages_times_seeds_of_one_recipe(tmp_path: Path) -> None:
    run = source(
        tmp_path / "run",
        "seenet",
        "loss.auxiliary=0.4",
        "training.start_from=elsewhere.safetensors",
        "optimizer.rate=0.02",
    )
    found = plan(run, "training.steps=7", seeds=2)
    assert [cell.name for cell in found.cells] == ["B2", "EB2", "B3", "B3+B2", "B3+EB2"]
    assert len(found.runs) == 10 and found.runs[-1].folder == run / "probe" / "B3+EB2-seed-1"
    recipes = [run.recipe for run in found.runs]
    for recipe, probe in zip(recipes, [cell.name for cell in found.cells] * 2, strict=True):
        assert (recipe.model.probe, recipe.model.width, recipe.model.weights) == (
            probe,
            8,
            str(run / "model.safetensors"),
        )
        assert (
            recipe.training.freeze_below
            and recipe.training.start_from is None
            and recipe.loss.auxiliary == 0
        )
    # Beside stage and seed nothing differs.
    schedules = {
        recipe.model_copy(update={"model": None, "seed": 0}).model_dump_json() for recipe in recipes
    }
    assert len(schedules) == 1 and (recipes[0].training.steps, recipes[0].optimizer.rate) == (
        7,
        0.02,
    )
    assert not (run / "probe").exists()


def test_what_is_trained_and_what_the_paper_has(tmp_path: Path) -> None:
    run = source(tmp_path / "run")
    network = create_model("seenet", **OPTIONS)  # type: ignore[arg-type]
    c2, c3 = network.backbone.channels[1:3]
    widths = {"B2": c2, "EB2": c2 + 32, "B3": c3, "B3+B2": c2 + c3, "B3+EB2": c2 + 32 + c3}
    cells = plan(run).cells
    for cell in cells:
        assert (
            cell.parameters
            == 9 * widths[cell.name] * 256 + 2 * 256 + 256 * SHAPES.num_classes + SHAPES.num_classes
        )
    assert [cell.paper.miou for cell in cells if cell.paper] == [50.1, 62.4, 69.4, 71.5, 73.5]
    assert not any(
        cell.paper for cell in plan(source(tmp_path / "b", "baseline"), stages="B2").cells
    )


@pytest.mark.parametrize("variant", ["baseline", "seem-fs", "torchvision-fcn"])
def test_models_without_enhancement(tmp_path: Path, variant: str) -> None:
    run = source(tmp_path / "run", variant)
    assert [cell.name for cell in plan(run).cells] == ["B2", "B3", "B3+B2"]
    with pytest.raises(
        UsageError,
        match=rf"--stages EB2: .*\({variant}\) has no enhanced B2; it has B2, B3, B3\+B2",
    ):
        plan(run, stages="B2,EB2")


def test_where_results_go(tmp_path: Path) -> None:
    run = source(tmp_path / "run")
    assert plan(run, joint=True, stages="B3").out == run / "probe-joint"
    (run / "model.safetensors").rename(run / "model-last.safetensors")
    assert plan(run / "model-last.safetensors", stages="B3").out == run / "probe-model-last"
    (run / "model-last.safetensors").rename(tmp_path / "net.safetensors")
    found = make_probe_plan(
        str(tmp_path / "net.safetensors"),
        "shapes",
        TINY[4:],
        None,
        stages="B3",
        joint=False,
        seeds=1,
    )
    assert found.out == Path("probes/net")


def factory(num_classes: int) -> object:
    from torch import nn

    return nn.Conv2d(3, num_classes, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", "B4"], "no such stage"),
        (["--stages", "B3-B2"], r"nearest: B3+B2"),
        (["--seeds", "0"], "expected at least 1"),
        (["model.width=4"], "a probe sets model.width itself"),
        (["training.freeze_below=false"], "a probe sets training.freeze_below itself"),
        (["loss.auxiliary=0.4"], "a probe sets loss.auxiliary itself"),
        (["seed=3"], "a probe sets seed itself"),
        (["data.val=null"], "data.val is null"),
        (["training.step=3"], "nearest: steps"),
    ],
)
def test_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    run = source(tmp_path / "run")
    code, _, err = call(capsys, str(run), *arguments)
    assert code == 2 and message in err
    assert not (run / "probe").exists()


def test_networks_that_cannot_be_probed(tmp_path: Path) -> None:
    run = source(tmp_path / "run", probe="B3")
    with pytest.raises(UsageError, match="a probe itself"):
        plan(run)
    save_model(
        run / "model.safetensors",
        create_model(factory=f"{__name__}:factory", num_classes=SHAPES.num_classes),
        SHAPES,
    )
    with pytest.raises(
        UsageError, match=r"network of model\.factory=.*, whose stages and modules are not known"
    ):
        plan(run)
    (run / "recipe.yaml").unlink()
    source(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(run / "model.safetensors")
    with pytest.raises(UsageError, match="belongs to no run whose recipe says how to train"):
        plan(run)


def test_code_that_only_the_recipe_beside_a_model_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = source(tmp_path / "run", "seenet", "transforms.custom=theirs.x:f")
    quick = ["--stages", "B2", "--dry-run"]
    for settings in ([], ["transforms.scale=[1, 1]"], ["transforms.crop=48", "training.steps=3"]):
        code, out, err = call(capsys, str(run), *settings, *quick)
        assert (code, out) == (2, ""), err
        assert "recipe.yaml: transforms.custom=theirs.x:f is code" in err
        assert "repeat transforms.custom=theirs.x:f on the command line, or name the recipe" in err
    for trusted in (
        ["transforms.custom=theirs.x:f"],
        ["transforms={crop: 48, custom: 'theirs.x:f'}"],
        [str(run / "recipe.yaml")],
    ):
        code, _, err = call(capsys, str(run), *trusted, *quick)
        assert code == 0, err
    for settings, name in (
        (["transforms.custom=null"], None),
        (["transforms={crop: 48}"], None),
        (["transforms.custom=ours:g"], "ours:g"),
    ):
        assert plan(run, *settings, stages="B2").runs[0].recipe.transforms.custom == name


@pytest.mark.parametrize("setting", ["data.kind", "loss.function"])
def test_data_and_losses_that_are_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    run = source(tmp_path / "run", "seenet", f"{setting}=no.such.module:f")
    code, _, err = call(capsys, str(run), "--stages", "B2", "--dry-run")
    assert (code, f"recipe.yaml: {setting}=no.such.module:f is code" in err) == (2, True), err


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = source(tmp_path / "run")
    pretend_trained(plan(run).runs[0], 0.5)
    code, out, err = call(capsys, str(run), "--stages", "B2,B3+EB2", "--dry-run")
    assert code == 0, err
    assert out.splitlines() == [
        "B2-seed-0: finished",
        "B3+EB2-seed-0: not started",
        "1 of 2 runs finished",
    ]


def test_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = source(tmp_path / "run")
    trainings = use(monkeypatch, Trainings({"EB2-seed-1": [5]}))
    arguments = [str(run), "--stages", "B2,EB2", "--seeds", "2", "--device", "cpu"]
    code, _, err = call(capsys, *arguments)
    assert code == 3 and "1 of 4 runs failed" in err
    assert "**PARTIAL: 3 of 4" in (run / "probe" / "table.md").read_text()
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    assert [name for name, _ in trainings.started].count("B2-seed-0") == 1
    table = (run / "probe" / "table.md").read_text()
    assert table in out and "PARTIAL" not in table
    header, _, first, second = table.splitlines()[:4]
    assert header.startswith("| stage (frozen below) | mIoU measured") and header.endswith(
        "mIoU in the paper (VOC val), % |"
    )
    assert first.startswith("| B2 | 50.00 | 0.00 | 2 of 2 |") and first.endswith(
        "| 50.1 (B2, resnet101) |"
    )
    assert second.endswith("| 62.4 (EB2, resnet101) |")
    assert "parameters: of the probe alone" in table and "joint:" not in table
    result = json.loads((run / "probe" / "results.json").read_text())
    model = {"file": str(run / "model.safetensors"), "sha256": sha256(run / "model.safetensors")}
    assert result["model"] == model and model["sha256"] in table
    assert (
        result["complete"]
        and result["unit"] == "stage (frozen below)"
        and result["version"]
        and "seenet" in result["command"]
    )
    runs = [entry for row in result["rows"] for entry in row["runs"]]
    assert [(entry["seed"], entry["miou"]) for entry in runs] == [(0, 0.5), (1, 0.5)] * 2
    assert runs[0]["folder"] == str(run / "probe" / "B2-seed-0")
    assert runs[0]["model"]["file"] == str(run / "probe" / "B2-seed-0" / "model.safetensors")
    assert (run / "probe" / "plot.png").is_file()


def test_a_folder_holds_one_kind_of_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = source(tmp_path / "run")
    trainings = use(monkeypatch, Trainings())
    module.ablate(plan(run, stages="B2"), device="cpu")
    for other, message in (
        (
            plan(run, stages="B3", joint=True, out=run / "probe"),
            r"unit was stage \(frozen below\) and is now stage \(joint\); give another",
        ),
        (tiny_plan(run / "probe", rows="c"), r"unit was stage \(frozen below\) and is now row"),
        (
            plan(run, "optimizer.rate=0.5", stages="B2"),
            r"optimizer\.rate was .* and is now 0\.5; give another --out",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            module.ablate(other, device="cpu")
    source(tmp_path / "run")  # trained anew: other weights under the same name
    with pytest.raises(UsageError, match=r"results\.json: model was .* and is now"):
        module.ablate(plan(run, stages="B3"), device="cpu")
    assert len(trainings.started) == 1


@pytest.mark.slow
def test_killed_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real network, real probes: the runner is killed in the first of them, the same command ends with both, and they can be used."""
    run = source(tmp_path / "run")
    arguments = [
        str(run),
        "training.steps=20",
        "training.checkpoint_every=1",
        "--stages",
        "B2,B3+EB2",
        "--device",
        "cpu",
    ]
    first = subprocess.Popen(
        [sys.executable, "-m", "seenet", "probe", *arguments], start_new_session=True
    )
    folder = run / "probe" / "B2-seed-0"
    deadline = time.monotonic() + 300
    while (
        not list((folder / "checkpoints").glob("step-*"))
        and first.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    os.kill(int((folder / "lock").read_text().split()[-1]), signal.SIGKILL)
    code, out, err = call(capsys, *arguments, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["complete"] and [row["row"] for row in result["rows"]] == ["B2", "B3+EB2"]
    assert "resumed after step" in (run / "probe" / "logs" / "B2-seed-0.log").read_text()
    for command in (
        ["eval", str(folder), "--device", "cpu"],
        ["report", str(run / "probe" / "B3+EB2-seed-0"), "--device", "cpu"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(command)
        assert not caught.value.code, capsys.readouterr().err
