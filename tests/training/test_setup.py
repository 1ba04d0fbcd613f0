"""What a run is made of: data and weights are checked at the door, loader workers fail in one line."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from seenet.core.errors import DataError, LostError, Stopped, UsageError
from seenet.core.labels import SHAPES, LabelSet
from seenet.data.shapes import ShapesSplit
from seenet.model import create_model
from seenet.model.files import load_model, save_model
from seenet.model.segmenter import Normalization
from seenet.training.setup import open_data
from seenet.training.trainer import Trainer, train
from tests.training.test_trainer import TINY, StopAfter, losses, recipe


def test_other_classes_than_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = recipe("training.steps=1")
    train(settings, tmp_path / "run", device="cpu")
    more = LabelSet("shapes", (*SHAPES.classes, "star"), (*SHAPES.colours, (9, 9, 9)), rim=True)
    monkeypatch.setattr("seenet.data.shapes.SHAPES", more)
    with pytest.raises(DataError, match=r"trained on 6 classes .*the data has 7 .*training\.start_from") as caught:
        train(settings, tmp_path / "run", resume=True, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_pictures_than_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    train(recipe("training.steps=1"), tmp_path / "run", device="cpu")
    key = ShapesSplit.key
    monkeypatch.setattr(ShapesSplit, "key", lambda self, index: key(self, index) + ("x" if (self.which, index) == (split, 3) else ""))
    with pytest.raises(DataError, match=rf"trained with \d+ pictures in {split}, the data has \d+, or others by name; .*start_from"):
        train(recipe("training.steps=1"), tmp_path / "run", resume=True, device="cpu")


def test_labels_that_are_all_ignored_are_met_at_the_door(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for index in range(8):
        Image.new("RGB", (48, 48)).save(tmp_path / "data" / "images" / f"{index}.png")
        Image.new("L", (48, 48), 255).save(tmp_path / "data" / "masks" / f"{index}.png")
    (tmp_path / "data" / "seenet.yaml").write_text("decode: index\nclasses: [a, b]\n")
    settings = recipe("data.kind=folder", f"data.root={tmp_path / 'data'}")
    with pytest.raises(DataError, match=r"no pixel of \d masks has a class, all are 255"):
        train(settings, tmp_path / "run", device="cpu")
    for index in range(8):
        Image.new("L", (48, 48), 1).save(tmp_path / "data" / "masks" / f"{index}.png")
    open_data(settings)
    assert "data/val: no pixel of a in its" in caplog.text


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


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_workers_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """Also that a transform of the user's is found in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"mine{workers}.py").write_text("def crop(image, mask):\n    return image\n")
    settings = recipe(f"transforms.custom=mine{workers}:crop", f"training.workers={workers}")
    with pytest.raises(UsageError) as caught:
        train(settings, tmp_path / "run", device="cpu")
    assert str(caught.value).startswith(f"transforms.custom=mine{workers}:crop: gave no dict")
    assert "\n" not in str(caught.value)


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


ROOT = Path(__file__).parents[2]
SCRIPT = """
import multiprocessing
import seenet
from seenet.core.recipe_files import load_recipe
def work():
    multiprocessing.set_start_method({method!r})
    settings = load_recipe("shapes", {settings!r})
    print("steps:", seenet.train(settings, "run", device="cpu").steps)
{call}
"""
SETTINGS = [*TINY, "training.steps=2", "training.workers=2", "training.validate_every=0"]


def run(folder: Path, method: str, call: str) -> subprocess.CompletedProcess[str]:
    (folder / "mine.py").write_text(SCRIPT.format(method=method, settings=SETTINGS, call=call))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "mine.py"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_without_a_guard_is_told_what_to_add_and_then_trains(tmp_path: Path, method: str) -> None:
    done = run(tmp_path, method, "work()")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("Traceback") == 1
    last = done.stderr.strip().rpartition("\n")[2]
    assert last.startswith("seenet.core.errors.UsageError: ") and 'mine.py, line 9: needs `if __name__ == "__main__":`' in last
    # Mended it starts anew, without `resume`.
    done = run(tmp_path, method, 'if __name__ == "__main__":\n    work()')
    assert (done.returncode, done.stdout) == (0, "steps: 2\n"), done.stderr[-2000:]
    assert len(losses(tmp_path / "run")) == 2
