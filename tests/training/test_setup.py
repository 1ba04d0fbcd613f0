"""Parts of a run: data and weights are checked first, and workers that fail are one message."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from seenet.core.errors import DataError, LostError, Stopped, UsageError
from seenet.core.labels import LabelSet
from seenet.data.shapes import SHAPES, ShapesSplit
from seenet.model import create_model
from seenet.model.files import load_model, save_model
from seenet.model.segmenter import Normalization
from seenet.training.setup import open_data
from seenet.training.trainer import train
from tests.training.launching import run
from tests.training.tiny import TINY, losses, recipe, same_models, signal_in, write_pairs


@pytest.mark.parametrize("what", ["classes", "train", "val"])
def test_a_checkpoint_of_other_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    settings = recipe("training.steps=1")
    train(settings, tmp_path / "run", device="cpu")
    message = rf"trained with \d+ images in {what}, the data has \d+"
    if what == "classes":
        more = LabelSet("shapes", (*SHAPES.classes, "star"), (*SHAPES.colours, (9, 9, 9)), rim=True)
        monkeypatch.setattr(ShapesSplit, "labels", more)
        message = "trained on 6 classes .*the data has 7 "
    else:
        key = ShapesSplit.key
        monkeypatch.setattr(
            ShapesSplit, "key", lambda self, index: key(self, index) + "x" * (self.which == what)
        )
    with pytest.raises(DataError, match=message + r".*training\.start_from"):
        train(settings, tmp_path / "run", resume=True, device="cpu")


def test_labels_that_are_all_ignored_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = recipe("data.kind=folder", f"data.root={tmp_path}")
    write_pairs(tmp_path, label=255)
    with pytest.raises(DataError, match="255"):
        train(settings, tmp_path / "run", device="cpu")
    write_pairs(tmp_path, label=1)
    open_data(settings)
    assert "val: no pixel of a in its" in caplog.text


@pytest.mark.parametrize("setting", ["model.weights", "training.start_from"])
def test_a_resumed_run_does_not_need_the_files_from_which_it_started(
    tmp_path: Path, setting: str
) -> None:
    start, whole, cut = tmp_path / "start.safetensors", tmp_path / "whole", tmp_path / "cut"
    settings = recipe(f"{setting}={start}", "training.steps=3", "training.validate_every=0")
    network = create_model(**recipe().model.model_dump(), num_classes=SHAPES.num_classes)
    # The network keeps the normalization of its weights file.
    network.normalization = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    save_model(start, network, SHAPES)
    train(settings, whole, device="cpu")
    with signal_in(2), pytest.raises(Stopped):
        train(settings, cut, device="cpu")
    start.unlink()
    train(settings, cut, resume=True, device="cpu")
    assert load_model(cut).model.normalization == load_model(whole).model.normalization
    assert same_models(cut, whole)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_worker_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """And a user's transform is found in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path(f"mine{workers}.py").write_text("def crop(image, mask):\n    return image\n")
    custom = f"transforms.custom=mine{workers}:crop"
    with pytest.raises(UsageError, match=rf"^{custom}: [^\n]*$"):
        train(recipe(custom, f"training.workers={workers}"), tmp_path / "run", device="cpu")


LOADERS = """
import os, signal, time
def stuck(image, mask):
    time.sleep(0 if os.path.exists("go") else 100)
    return {"image": image, "mask": mask}
def killed(image, mask):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_does_not_wait_for_a_loader_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"loader_{number}.py").write_text(LOADERS)
    custom = f"transforms.custom=loader_{number}:stuck"
    settings = recipe("training.steps=1", custom, "training.workers=1")
    threading.Timer(4, os.kill, (os.getpid(), number)).start()
    before, started = multiprocessing.active_children(), time.monotonic()
    with pytest.raises(Stopped, match="stopped after step 0") as caught:
        train(settings, tmp_path / "run", device="cpu")
    assert caught.value.exit_code == code
    assert time.monotonic() - started < 60
    assert multiprocessing.active_children() == before
    Path("go").touch()
    assert train(settings, tmp_path / "run", resume=True, device="cpu").steps == 1


def test_a_killed_worker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loader_killed.py").write_text(LOADERS)
    settings = recipe("transforms.custom=loader_killed:killed", "training.workers=1")
    with pytest.raises(LostError, match=r"^DataLoader worker \(pid.*training\.workers") as caught:
        train(settings, tmp_path / "run", device="cpu")
    assert caught.value.exit_code == 75


SCRIPT = """
import multiprocessing
import seenet
from seenet.core.recipe_files import load_recipe
if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    seenet.train(load_recipe("shapes", {settings!r}), {out!r}, device="cpu")
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_are_not_forked(tmp_path: Path, method: str) -> None:
    settings = [*TINY, "training.steps=2", "training.workers=2", "training.validate_every=0"]
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.format(method=method, settings=settings, out=str(tmp_path / "run")))
    code, said = run(sys.executable, str(script))
    assert code == 0, said[-2000:]
    assert len(losses(tmp_path / "run")) == 2
