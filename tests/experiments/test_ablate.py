"""Runs are started once, left alone when done, tried again when not; what fails does not stop the rest."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seenet.cli import main
from seenet.core.errors import PartialError, UsageError
from seenet.experiments import ablate as module
from seenet.experiments.ablate import Slot, slots
from seenet.experiments.plan import Plan, Run
from tests.experiments.doubles import TINY, pretend_trained, tiny_plan


class Trainings:
    """Stands for `seenet train`: ends with the codes it was told, in order, and on 0 leaves a trained run."""

    def __init__(self, codes: dict[str, list[int]] | None = None) -> None:
        self.codes, self.started = codes or {}, list[tuple[str, str]]()

    def start(self, run: Run, out: Path, slot: Slot) -> subprocess.Popen[bytes]:
        self.started.append((run.name, slot.environment.get("CUDA_VISIBLE_DEVICES", slot.device)))
        code = self.codes[run.name].pop(0) if self.codes.get(run.name) else 0
        if code == 0:
            pretend_trained(run, 0.5)
        return subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({code})"])


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return tiny_plan(tmp_path / "out")


def use(monkeypatch: pytest.MonkeyPatch, trainings: Trainings) -> Trainings:
    monkeypatch.setattr(module, "_start", trainings.start)
    return trainings


def test_finished_runs_are_not_trained_again(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_trained(plan.runs[1], 0.5)
    trainings = use(monkeypatch, Trainings())
    assert module.ablate(plan, device="cpu")["complete"]
    assert [name for name, _ in trainings.started] == ["baseline-seed-0", "baseline-seed-1", "seenet-seed-1"]
    assert (plan.out / "table.md").is_file() and (plan.out / "plot.png").is_file() and (plan.out / "table.csv").is_file()
    module.ablate(plan, device="cpu")
    assert len(trainings.started) == 3


def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = use(monkeypatch, Trainings({"seenet-seed-0": [5, 0]}))
    with pytest.raises(PartialError, match=r"1 of 4 runs failed.*seenet-seed-0 \(exit 5"):
        module.ablate(plan, device="cpu")
    assert len(trainings.started) == 4
    assert "**PARTIAL: 3 of 4" in (plan.out / "table.md").read_text()
    assert module.ablate(plan, device="cpu")["complete"]
    assert len(trainings.started) == 5


def test_a_run_that_another_process_holds_is_waited_for(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_WAIT_SECONDS", 0.5)
    trainings = use(monkeypatch, Trainings({"baseline-seed-0": [75, 0]}))
    assert module.ablate(plan, device="cpu")["complete"]
    assert [name for name, _ in trainings.started].count("baseline-seed-0") == 2
    assert trainings.started[1][0] != "baseline-seed-0"


def test_one_run_a_gpu(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = use(monkeypatch, Trainings())
    module.run_all(plan.runs, plan.out, [Slot("cuda", {"CUDA_VISIBLE_DEVICES": name}) for name in ("2", "5")], lambda: None)
    assert {place for _, place in trainings.started} == {"2", "5"}


def test_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slots("cpu") == [Slot("cpu")]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert slots("auto") == [Slot("cuda", {"CUDA_VISIBLE_DEVICES": "2"}), Slot("cuda", {"CUDA_VISIBLE_DEVICES": "5"})]
    assert slots("cuda:1") == [Slot("cuda:1")]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots("cuda")] == ["0", "1"]


def test_runs_of_other_settings_are_not_mixed_in(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = use(monkeypatch, Trainings())
    pretend_trained(plan.runs[0], 0.5)
    path = plan.runs[0].folder / "recipe.yaml"
    path.write_text(path.read_text().replace("steps: 2", "steps: 3"))
    with pytest.raises(UsageError, match=r"training\.steps was 3 and is now 2; give another --out"):
        module.ablate(plan, device="cpu")
    assert not trainings.started


def command(out: Path, *arguments: str) -> list[str]:
    return ["ablate", "shapes", *TINY, "--out", str(out), "--device", "cpu", *arguments]


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_dry_run_lists_and_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    grid = ["--vary", "model.width=8,16", "model.refine_stride=4,8", "--seeds", "2", "--dry-run"]
    code, out, err = call(capsys, *command(tmp_path / "grid", *grid))
    assert code == 0, err
    assert out.splitlines()[0] == "seenet-width=8-refine_stride=4-seed-0: not started"
    assert out.splitlines()[-1] == "0 of 8 runs finished"
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "model.pout=1,2"], "nearest: p_out"),
        (["--vary", "model.width=8", "model.refin_stride=4,8"], "nearest: refine_stride"),
        (["--vary", "--seeds", "2"], "expected key=value"),
        (["--rows", "senet"], "nearest: seenet"),
    ],
)
def test_wrong_usage_is_met_first(capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str) -> None:
    code, _, err = call(capsys, *command(tmp_path / "out", *arguments))
    assert code == 2
    assert message in err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runner and training are killed without warning; the same command goes on from the checkpoint and ends with all rows."""
    settings = ["training.steps=20", "training.checkpoint_every=1", "--rows", "c,torchvision-deeplabv3", "--seeds", "1"]
    program = [sys.executable, "-m", "seenet", *command(tmp_path / "out", *settings)]
    first = subprocess.Popen(program, start_new_session=True)
    checkpoints = tmp_path / "out" / "baseline-seed-0" / "checkpoints"
    deadline = time.monotonic() + 300
    while not list(checkpoints.glob("step-*")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    # The training has a session of its own and outlives its module.
    os.kill(int((checkpoints.parent / "lock").read_text().split()[-1]), signal.SIGKILL)
    code, out, err = call(capsys, *command(tmp_path / "out", *settings, "--json"))
    assert code == 0, err
    result = json.loads(out)
    assert result["complete"] and [row["row"] for row in result["rows"]] == ["baseline", "torchvision-deeplabv3"]
    assert all(row["images_per_s"] > 0 and row["miou"]["sd"] is None for row in result["rows"])
    assert result["protocol"]["data"] == "shapes" and "seenet" in result["command"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "baseline-seed-0" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 21))
    assert "resumed after step" in (tmp_path / "out" / "logs" / "baseline-seed-0.log").read_text()
    assert "one seed" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.slow
def test_stopped_by_a_signal_saves_first(tmp_path: Path) -> None:
    settings = ["training.steps=2000", "training.checkpoint_every=1000", "--rows", "c"]
    process = subprocess.Popen([sys.executable, "-m", "seenet", *command(tmp_path / "out", *settings)])
    metrics = tmp_path / "out" / "baseline-seed-0" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.is_file() and metrics.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    assert list((metrics.parent / "checkpoints").glob("step-*"))
    assert json.loads((metrics.parent / "exit.json").read_text())["0"]["code"] == 143
