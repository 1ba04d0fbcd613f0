"""Runs are started once, left alone when done, tried again when not; what fails does not stop the rest."""

import subprocess
import sys
from pathlib import Path

import pytest

from seenet.core.errors import PartialError, UsageError
from seenet.experiments import ablate as module
from seenet.experiments import runner
from seenet.experiments.plan import Plan, Run
from seenet.experiments.runner import Slot, slots
from tests.experiments.doubles import pretend_trained, tiny_plan


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
    monkeypatch.setattr(runner, "_start", trainings.start)
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
    monkeypatch.setattr(runner, "BUSY_WAIT_SECONDS", 0.5)
    trainings = use(monkeypatch, Trainings({"baseline-seed-0": [75, 0]}))
    assert module.ablate(plan, device="cpu")["complete"]
    assert [name for name, _ in trainings.started].count("baseline-seed-0") == 2
    assert trainings.started[1][0] != "baseline-seed-0"


def test_one_run_a_gpu(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = use(monkeypatch, Trainings())
    runner.run_all(plan.runs, plan.out, [Slot("cuda", {"CUDA_VISIBLE_DEVICES": name}) for name in ("2", "5")], lambda: None)
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
