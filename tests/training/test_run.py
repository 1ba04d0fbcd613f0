"""What a run holds and leaves: its folder, its lock, how it ended, and what signals and kills do to it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import seenet
from seenet.core import locks
from seenet.core.errors import BusyError, DataError, Stopped, UsageError
from seenet.core.files import write_text
from seenet.core.labels import SHAPES
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.training.run import IdleSignal, open_run, stop_requests
from seenet.training.trainer import Trainer, train
from tests.training.test_trainer import TINY, StopAfter, losses, recipe

MANY = ["training.steps=5000", "training.validate_every=0", "training.workers=1"]
PATIENCE = 300
"""Seconds; on a busy machine the imports alone take a minute."""


def wait_for(condition: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.05)


@contextmanager
def training(run: Path, *settings: str) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """`seenet train` in a session of its own, some steps on, and its loader workers."""
    command = [sys.executable, "-m", "seenet", "train", "shapes", *TINY, *MANY, *settings, "--out", str(run), "--device", "cpu"]
    process = subprocess.Popen(command, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    try:
        metrics = run / "metrics.jsonl"
        wait_for(lambda: process.poll() is not None or (metrics.exists() and metrics.read_bytes().count(b"\n") > 2), "steps are made")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield process, [int(child) for child in children]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ended(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run in `run` is resumed, makes a step, and keeps its losses."""
    before = losses(run)
    last = int(sorted((run / "checkpoints").iterdir())[-1].name.removeprefix("step-"))
    stop = StopAfter(last + 1, signal.SIGTERM)
    monkeypatch.setattr(Trainer, "update", lambda self, batches: stop(self, batches))
    with pytest.raises(Stopped, match=f"stopped after step {last + 1}, saved"):
        train(recipe(*MANY, "training.workers=0"), run, resume=True, device="cpu")
    after = losses(run)
    assert len(after) == last + 1
    assert after[: len(before)] == before[: last + 1]


def test_a_signal_waits_for_what_is_under_way_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.code == 143
        with pytest.raises(IdleSignal), stop.idle():
            signal.raise_signal(signal.SIGTERM)
        # What the first one began is not interrupted by a second.
        signal.raise_signal(signal.SIGTERM)
        assert stop.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_after_one_in_idle_time_saving_goes_on() -> None:
    with stop_requests() as stop:
        with stop.idle():
            with pytest.raises(IdleSignal):
                signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        assert stop.code == 143


def test_the_second_interrupt_is_at_once() -> None:
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.code == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_another_thread_trains_and_scores_without_listening(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "seenet")
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    found: list[object] = []

    def work() -> None:
        try:
            result = seenet.train(recipe("training.steps=2", "training.workers=1"), tmp_path / "run", device="cpu")
            found.append((result.miou, seenet.evaluate(tmp_path / "run", device="cpu")["miou"]))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert isinstance(found[0], tuple), found
    assert found[0][0] == found[0][1]
    assert len([record for record in caplog.records if "not in the main thread" in record.getMessage()]) == 1
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_to_the_group_saves_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int) -> None:
    run = tmp_path / "run"
    with training(run, "training.checkpoint_every=5000") as (process, workers):
        assert workers
        os.killpg(process.pid, number)
        assert process.wait(PATIENCE) == code
        assert all(ended(worker) for worker in workers)
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{len(losses(run)):08d}"]
    assert json.loads((run / "exit.json").read_text())["0"]["code"] == code
    goes_on(run, monkeypatch)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_run_goes_on_at_once_and_its_workers_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with training(run, "training.checkpoint_every=1") as (process, workers):
        assert workers
        process.kill()
        process.wait()
        assert json.loads((run / "exit.json").read_text())["0"]["code"] is None
        goes_on(run, monkeypatch)
        wait_for(lambda: all(ended(worker) for worker in workers), "workers see that their trainer is gone")


def test_forked_child_does_not_hold_the_run(tmp_path: Path) -> None:
    born, birth = os.pipe()
    with open_run(tmp_path, recipe(), resume=False):
        child = os.fork()
        if not child:
            os.write(birth, b"!")
            time.sleep(PATIENCE)
            os._exit(0)
        # Until it has run for a moment, the child holds what it was forked with.
        assert os.read(born, 1) == b"!"
    try:
        with open_run(tmp_path, recipe(), resume=False):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(born)
        os.close(birth)


def test_runs_leave_nothing_behind_in_their_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[dict[str, object]] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: registered.append(hooks))
    handles = len(list(Path("/dev/fd").iterdir()))
    for number in range(3):
        with open_run(tmp_path / str(number), recipe(), resume=False):
            assert locks._held
    assert not registered
    assert not locks._held
    assert len(list(Path("/dev/fd").iterdir())) == handles


def test_busy_run_names_its_holder(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", recipe(), resume=False), pytest.raises(BusyError, match=f"pid {os.getpid()}"):
        train(recipe(), tmp_path / "run", resume=True, device="cpu")


def test_nothing_is_overwritten_or_mixed(tmp_path: Path) -> None:
    settings = recipe("training.steps=1")
    train(settings, tmp_path / "run", device="cpu")
    with pytest.raises(DataError, match="--resume"):
        train(settings, tmp_path / "run", device="cpu")
    with pytest.raises(UsageError, match=r"training\.batch was 4 and is now 8"):
        train(recipe("training.steps=1", "training.batch=8"), tmp_path / "run", resume=True, device="cpu")
    with pytest.raises(DataError, match="no run to resume"):
        train(settings, tmp_path / "none", resume=True, device="cpu")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match=r"holds thesis\.txt"):
        train(settings, tmp_path / "mine", device="cpu")


def test_a_recipe_of_the_users_own_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "exp").mkdir()
    own = tmp_path / "exp" / "recipe.yaml"
    own.write_text("# my thoughts\ndata: {kind: shapes}\n")
    for resume in (False, True, False):
        with pytest.raises(DataError, match=r"holds recipe\.yaml but no run|no run to resume"):
            train(recipe(), tmp_path / "exp", resume=resume, device="cpu")
    assert own.read_text().startswith("# my thoughts")


@pytest.mark.parametrize("resume", [False, True])
def test_failed_start_is_in_nobodys_way(tmp_path: Path, resume: bool) -> None:
    start = tmp_path / "start.safetensors"
    settings = recipe("training.steps=1", "training.validate_every=0", f"training.start_from={start}")
    with pytest.raises(DataError, match=r"start\.safetensors"):
        train(settings, tmp_path / "run", device="cpu")
    assert json.loads((tmp_path / "run" / "exit.json").read_text())["0"]["code"] == 4
    save_model(start, create_model(**settings.model.model_dump(), num_classes=SHAPES.num_classes), SHAPES)
    assert train(settings, tmp_path / "run", resume=resume, device="cpu").steps == 1


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("after", ["recipe.yaml", "exit.json"])
def test_start_killed_between_its_first_files_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool, after: str
) -> None:
    def killed_after(path: Path, text: str) -> None:
        write_text(path, text)
        if path.name == after:
            shutil.copytree(tmp_path / "first", tmp_path / "run")
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("seenet.training.run.write_text", killed_after)
        with pytest.raises(KeyboardInterrupt), open_run(tmp_path / "first", recipe(), resume=False):
            pass
    if resume and not (tmp_path / "run" / "recipe.yaml").exists():
        with pytest.raises(DataError, match="start it without --resume"), open_run(tmp_path / "run", recipe(), resume=True):
            pass
    else:
        with open_run(tmp_path / "run", recipe(), resume=resume):
            pass
        assert json.loads((tmp_path / "run" / "exit.json").read_text())["0"]["code"] == 0


def test_half_models_of_a_killed_start_are_removed(tmp_path: Path) -> None:
    """And nothing that looks alike."""
    with open_run(tmp_path, recipe(), resume=False):
        pass
    ours = [".model.safetensors.ab12cd_9.safetensors", ".model-last.safetensors.ab12cd_9.safetensors", ".val.json.ab12cd_9.json"]
    others = [".model.safetensors.mine", "model-mine.safetensors", ".mine.safetensors.ab12cd_9.safetensors"]
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1}\n')
    for name in (*ours, *others):
        (tmp_path / name).write_text("half")
    with open_run(tmp_path, recipe(), resume=True):
        left = {path.name for path in tmp_path.iterdir()}
    assert not left & set(ours)
    assert left >= set(others)


def test_exit_json_says_no_more_than_is_known(tmp_path: Path) -> None:
    path = tmp_path / "exit.json"
    path.write_text('{"0": {"code": 1')
    with open_run(tmp_path, recipe(), resume=False):
        assert json.loads(path.read_text())["0"]["code"] is None
    assert json.loads(path.read_text()) == {"0": {"code": 0, "reason": "done"}}
