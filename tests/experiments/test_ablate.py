"""Runs are trained once; one that fails is tried again and does not stop the others."""

import json
import signal
from pathlib import Path

import pytest

from seenet.core.errors import PartialError
from seenet.experiments import ablate as module
from seenet.experiments.ablate import ablate, gpus_for, train_all
from seenet.experiments.plan import Plan
from tests.cli.commands import run
from tests.experiments.doubles import (
    TINY,
    Trainings,
    kill,
    pretend_trained,
    start_until,
    tiny_plan,
)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return tiny_plan(tmp_path / "out")


def test_runs_are_trained_once_and_failed_ones_again(plan: Plan, trainings: Trainings) -> None:
    pretend_trained(plan.runs[2], 0.5)
    trainings.codes = {"seenet-seed-0": [5]}
    with pytest.raises(PartialError, match=r"1 of 4 .*seenet-seed-0 \(exit 5: the loss is nan\)"):
        ablate(plan, device="cpu")
    assert trainings.started == ["baseline-seed-0", "seenet-seed-0", "seenet-seed-1"]
    assert "**PARTIAL: 3 of 4" in (plan.out / "table.md").read_text()
    for _ in range(2):
        assert ablate(plan, device="cpu")["complete"]
    assert trainings.started[3:] == ["seenet-seed-0"]
    files = {path.name for path in plan.out.iterdir() if path.is_file()}
    assert files == {"results.json", "table.md", "table.csv", "plot.png"}


def test_a_run_that_another_process_holds_is_tried_again_later(
    plan: Plan, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_WAIT_SECONDS", 0.5)
    trainings.codes = {"baseline-seed-0": [75]}
    assert ablate(plan, device="cpu")["complete"]
    assert trainings.started.count("baseline-seed-0") == 2
    assert trainings.started[1] != "baseline-seed-0"


def test_one_run_a_gpu(plan: Plan, trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus_for("cpu") == [None]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_for("cuda") == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert gpus_for("auto") == ["2", "5"]
    assert gpus_for("cuda:1") == [None]
    assert train_all(plan, "auto", ["2", "5"], None) == {}
    assert set(trainings.gpus) == {"2", "5"}


def test_the_process_of_a_run_says_why_it_ends(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, rows="c", seeds=1)
    plan.runs[0].folder.mkdir()
    (plan.runs[0].folder / "notes.txt").write_text("mine")
    with pytest.raises(PartialError, match=r"baseline-seed-0 \(exit 4: .*notes\.txt"):
        ablate(plan, device="cpu")


def command(out: Path, *arguments: str) -> list[str]:
    return ["ablate", "shapes", *TINY, "--out", str(out), "--device", "cpu", *arguments]


def test_dry_run_lists_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    grid = ["--vary", "model.width=8,16", "model.refine_stride=4,8", "--seeds", "2", "--dry-run"]
    code, out, err = run(capsys, *command(tmp_path / "grid", *grid))
    assert code == 0, err
    assert out.splitlines()[0] == "seenet-width=8-refine_stride=4-seed-0: not started"
    assert out.splitlines()[-1] == "0 of 8 runs finished"
    assert not (tmp_path / "grid").exists()


@pytest.mark.slow
def test_the_same_command_goes_on_after_a_kill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runner and training are killed; the same command resumes from the checkpoint."""
    settings = ["training.steps=20", "training.checkpoint_every=1", "--seeds", "1"]
    line = command(tmp_path, *settings, "--rows", "c,torchvision-deeplabv3")
    folder = tmp_path / "baseline-seed-0"
    kill(start_until(lambda: list(folder.glob("checkpoints/step-*")), *line), folder)
    code, out, err = run(capsys, *line, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["complete"]
    assert [row["row"] for row in result["rows"]] == ["baseline", "torchvision-deeplabv3"]
    assert all(row["images_per_s"] > 0 and row["miou"]["sd"] is None for row in result["rows"])
    assert result["protocol"]["data"] == "shapes" and "seenet" in result["command"]
    steps = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps if "loss" in step] == list(range(1, 21))
    assert "resumed after step" in (tmp_path / "logs" / "baseline-seed-0.log").read_text()
    assert "one seed" in (tmp_path / "table.md").read_text()


@pytest.mark.slow
def test_a_signal_saves_the_runs_first(tmp_path: Path) -> None:
    settings = ["training.steps=2000", "training.checkpoint_every=1000", "--rows", "c"]
    folder = tmp_path / "baseline-seed-0"
    metrics = folder / "metrics.jsonl"
    process = start_until(
        lambda: metrics.is_file() and metrics.stat().st_size, *command(tmp_path, *settings)
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    assert list(folder.glob("checkpoints/step-*"))
    assert json.loads((folder / "exit.json").read_text())["0"]["code"] == 143
