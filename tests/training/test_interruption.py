"""Signals, kills, failed starts and full disks: nothing of a run is lost, held or in the way."""

import json
import multiprocessing
import os
import re
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
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from seenet.core.errors import DataError, LostError, Stopped
from seenet.core.files import write_text
from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.model.files import load_model, save_model
from seenet.model.segmenter import Normalization
from seenet.prediction.predictor import Predictor
from seenet.training import checkpoint
from seenet.training.run import open_run
from seenet.training.trainer import Trainer, train
from tests.training.test_trainer import TINY, StopAfter, losses, recipe

MANY = ["training.steps=5000", "training.validate_every=0", "training.workers=1"]
PATIENCE = 300
"""Seconds; on a busy machine the imports alone take a minute."""


def lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what is of the clock and the machine."""
    timing = {"images_per_s", "memory_mib", "waited"}
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timing} for line in found]


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


@pytest.mark.parametrize("step", [3, 6])
def test_validation_cut_short_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    train(recipe(), tmp_path / "whole", device="cpu")
    seen = []

    def stripes(self: Predictor, *arguments: Any) -> Iterator[torch.Tensor]:
        seen.append(0)
        if len(seen) == (10 if step == 3 else 60):  # 50 pictures a validation
            os.kill(os.getpid(), signal.SIGTERM)
        return honest(self, *arguments)

    honest = Predictor.stripes
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "stripes", stripes)
        with pytest.raises(Stopped, match="while validating") as caught:
            train(recipe(), tmp_path / "cut", device="cpu")
    assert caught.value.exit_code == 143
    assert len(seen) == (10 if step == 3 else 60)
    assert len(losses(tmp_path / "cut")) == step
    train(recipe(), tmp_path / "cut", resume=True, device="cpu")
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert [line["step"] for line in lines(tmp_path / "cut") if "val" in line] == [3, 6]
    for name in ("model.safetensors", "model-last.safetensors", "checkpoints/step-00000006/optimizer.safetensors"):
        first, second = load_file(tmp_path / "whole" / name), load_file(tmp_path / "cut" / name)
        assert all(torch.equal(first[key], second[key]) for key in first | second)


@pytest.mark.parametrize("resume", [False, True])
def test_failed_start_is_in_nobodys_way(tmp_path: Path, resume: bool) -> None:
    start = tmp_path / "start.safetensors"
    settings = recipe("training.steps=1", "training.validate_every=0", f"training.start_from={start}")
    with pytest.raises(DataError, match=r"start\.safetensors"):
        train(settings, tmp_path / "run", device="cpu")
    assert json.loads((tmp_path / "run" / "exit.json").read_text())["0"]["code"] == 4
    save_model(start, create_model(**settings.model.model_dump(), num_classes=SHAPES.num_classes), SHAPES)
    assert train(settings, tmp_path / "run", resume=resume, device="cpu").steps == 1


@pytest.mark.parametrize("setting", ["model.weights", "training.start_from"])
def test_resume_does_without_the_files_it_started_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    start = tmp_path / "start.safetensors"
    settings = recipe(f"{setting}={start}", "training.steps=3", "training.validate_every=0")
    made = create_model(**recipe().model.model_dump(), num_classes=SHAPES.num_classes)
    # What a weights file says of its pictures is the network's from then on.
    made.normalization = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    save_model(start, made, SHAPES)
    train(settings, tmp_path / "whole", device="cpu")
    stop = StopAfter(2, signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", lambda self, batches: stop(self, batches))
        with pytest.raises(Stopped):
            train(settings, tmp_path / "cut", device="cpu")
    start.unlink()
    train(settings, tmp_path / "cut", resume=True, device="cpu")
    whole, cut = load_model(tmp_path / "whole"), load_model(tmp_path / "cut")
    assert cut.model.normalization == whole.model.normalization
    first, second = whole.model.state_dict(), cut.model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


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


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device (os error 28)")])
def test_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    content = checkpoint.Checkpoint({"model": {"weight": torch.arange(4.0)}}, {"step": 1})
    good = checkpoint.save(tmp_path, 1, content, keep=1)
    before = {path.name: path.read_bytes() for path in good.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(DataError, match=f"^{tmp_path}: cannot be written .*No space left on device") as caught:
        checkpoint.save(tmp_path, 2, content, keep=1)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [good]
    assert {path.name: path.read_bytes() for path in good.iterdir()} == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs that two checkpoints of a tiny run fit in (80 MB each), and a third does not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "none", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_training_on_a_full_disk_says_so_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    run = small_disk / "run"
    settings = [*TINY, "training.validate_every=0", "training.steps=4", "training.keep=2"]
    command = [sys.executable, "-m", "seenet", "train", "shapes", *settings, "--out", str(run), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 4
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("seenet: ")]
    assert re.match(rf"seenet: {run}\S*: cannot be written \(.*No space left on device.*make room", line)
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000001", "step-00000002"]
    for folder in (run / "checkpoints").iterdir():
        checkpoint.verify(folder)
    subprocess.run(["mount", "-o", "remount,size=500m", str(small_disk)], check=True)
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0
    assert "resumed after step 2" in done.stderr
    assert len(losses(run)) == 4


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_optimizer_state_comes_back_in_its_own_layout(tmp_path: Path, kind: Any) -> None:
    """Saved tensors are contiguous; an update over mixed strides takes another loop, which need not round the same."""

    def made() -> Any:
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(8, 5, 3, 3).contiguous(memory_format=torch.channels_last))
        return kind([weight], lr=0.1, **({"momentum": 0.9} if kind is torch.optim.SGD else {})), weight

    optimizer, weight = made()
    weight.square().sum().backward()
    optimizer.step()
    packed = checkpoint.pack_optimizer(optimizer)
    saved = checkpoint.load(checkpoint.save(tmp_path, 1, checkpoint.Checkpoint({"optimizer": packed}, {}), keep=1)).tensors["optimizer"]
    other, _ = made()
    checkpoint.unpack_optimizer(other, saved)
    back = checkpoint.pack_optimizer(other)
    assert back.keys() == packed.keys()
    assert all(torch.equal(back[key], packed[key]) and back[key].stride() == packed[key].stride() for key in packed)


STUCK = """
import os, signal, time
def stuck(image, mask):
    time.sleep(0 if os.path.exists("go") else 100)
    return {"image": image, "mask": mask}
def killed(image, mask):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_loader_that_hangs_keeps_no_signal_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"loader_{number}.py").write_text(STUCK)
    settings = recipe("training.steps=1", f"transforms.custom=loader_{number}:stuck", "training.workers=1")
    threading.Timer(4, os.kill, (os.getpid(), number)).start()
    before, started = multiprocessing.active_children(), time.monotonic()
    with pytest.raises(Stopped, match="stopped after step 0, saved; go on with --resume") as caught:
        train(settings, tmp_path / "run", device="cpu")
    assert caught.value.exit_code == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert time.monotonic() - started < 60
    assert multiprocessing.active_children() == before
    Path("go").touch()
    assert train(settings, tmp_path / "run", resume=True, device="cpu").steps == 1


def test_a_loader_that_is_killed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loader_killed.py").write_text(STUCK)
    with pytest.raises(LostError, match=r"^DataLoader worker \(pid.*use fewer training\.workers") as caught:
        train(recipe("transforms.custom=loader_killed:killed", "training.workers=1"), tmp_path / "run", device="cpu")
    assert caught.value.exit_code == 75
