"""A recipe with stages: each starts from the last weights of the one before, a kill loses nothing, what is wrong is met at the door."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seenet.core.errors import DataError, Stopped, UsageError
from seenet.core.recipe_files import load_recipe
from seenet.core.settings import Recipe
from seenet.model.files import load_model
from seenet.report.page import write_report
from seenet.training import stages as module
from seenet.training.stages import StagesForecast, chain_stages, forecast_recipe, train_recipe
from seenet.training.trainer import Trainer
from tests.training.test_trainer import StopAfter, losses

ROOT = Path(__file__).parents[2]
TWO = [sys.executable, *["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]]

TEXT = """
data: {kind: shapes, size: 48, count: 24}
model: {variant: baseline, backbone: resnet10t, width: 8, p_out: 16}
transforms: {crop: 48}
optimizer: {rate: 0.01}
training: {steps: 2, batch: 4, workers: 0, checkpoint_every: 1, ema: 0.5}
stages:
  first:
  second:
    data: {train: val, val: null}
    optimizer: {rate: 0.001}
    training: {steps: 3}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "two.yaml").write_text(TEXT)
    return tmp_path / "two.yaml"


def recipe(path: Path, *overrides: str) -> Recipe:
    return load_recipe(path, list(overrides))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_second_stage_starts_from_the_firsts_last_weights(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def update(self: Trainer, batches: object) -> tuple[float, float]:
        if self.step == 0:
            started.append({key: value.clone() for key, value in self.model.state_dict().items()})
        return honest(self, batches)  # type: ignore[arg-type]

    honest = Trainer.update
    monkeypatch.setattr(Trainer, "update", update)
    out = tmp_path / "run"
    result = train_recipe(recipe(path), out, device="cpu", command="seenet train two")
    assert same(started[1], weights(out / "1-first" / "model-last.safetensors"))
    assert not same(started[0], started[1])
    assert (out / "model.safetensors").read_bytes() == (out / "2-second" / "model.safetensors").read_bytes()
    assert (result.out, result.steps, result.miou) == (out, 3, None)
    assert [len(losses(out / name)) for name in ("1-first", "2-second")] == [2, 3]
    for name in ("1-first", "2-second"):
        assert not load_recipe(out / name / "recipe.yaml").stages
    assert load_recipe(out / "2-second" / "recipe.yaml").training.start_from == str(out / "1-first" / "model-last.safetensors")
    assert load_recipe(out / "recipe.yaml") == recipe(path)
    assert (out / "1-first" / "val.json").is_file()
    # A stage is an ordinary run; the whole has no report of its own, and says whose to look at.
    assert write_report(out / "1-first", device="cpu", images=1).is_file()
    with pytest.raises(UsageError, match=r"1-first, .*2-second"):
        write_report(out, device="cpu")
    # Called again it changes nothing; without --resume it is refused.
    before = {name: name.read_bytes() for name in out.rglob("*.safetensors")}
    monkeypatch.setattr(module, "train_in_group", lambda *_, **__: pytest.fail("a finished stage was trained again"))
    monkeypatch.setattr(module, "check_data", lambda stages: pytest.fail("its data was asked for") if stages else None)
    assert train_recipe(recipe(path), out, resume=True, device="cpu") == result
    assert {name: name.read_bytes() for name in out.rglob("*.safetensors")} == before
    with pytest.raises(DataError, match="a run is there already; go on with --resume"):
        train_recipe(recipe(path), out, device="cpu")


def test_stopped_in_the_second_stage_it_goes_on(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_recipe(recipe(path), tmp_path / "whole", device="cpu")
    made = 0

    def update(self: Trainer, batches: object) -> tuple[float, float]:
        nonlocal made
        made += 1
        if made == 4:
            signal.raise_signal(signal.SIGTERM)
        return honest(self, batches)  # type: ignore[arg-type]

    honest = Trainer.update
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", update)
        with pytest.raises(Stopped, match=r"2-second: stopped after step 2") as caught:
            train_recipe(recipe(path), tmp_path / "cut", device="cpu")
    assert caught.value.exit_code == 143
    assert json.loads((tmp_path / "cut" / "exit.json").read_text())["0"]["code"] == 143
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    # By another name of the folder, as of one that was moved.
    (tmp_path / "cut").rename(tmp_path / "moved")
    kept = {name: name.read_bytes() for name in (tmp_path / "moved" / "1-first").glob("*.safetensors")}
    monkeypatch.chdir(tmp_path)
    train_recipe(recipe(path), Path("moved"), resume=True, device="cpu")
    for name in ("1-first", "2-second"):
        assert losses(tmp_path / "moved" / name) == losses(tmp_path / "whole" / name)
    assert same(weights(tmp_path / "moved" / "model.safetensors"), weights(tmp_path / "whole" / "model.safetensors"))
    assert all(name.read_bytes() == content for name, content in kept.items())


def test_other_settings_than_the_stages_that_are_there(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopAfter(1, signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", lambda self, batches: stop(self, batches))
        with pytest.raises(Stopped):
            train_recipe(recipe(path), tmp_path / "run", device="cpu")
    with pytest.raises(UsageError, match=r"stages\.second\.optimizer\.rate was 0\.001 and is now 0\.5"):
        train_recipe(recipe(path, "stages.second.optimizer.rate=0.5"), tmp_path / "run", resume=True, device="cpu")
    path.write_text(TEXT.replace("second:", "third:"))
    with pytest.raises(UsageError, match="stages were first, second and are now first, third"):
        train_recipe(recipe(path), tmp_path / "run", resume=True, device="cpu")
    path.write_text(TEXT)
    allowed = recipe(path, "training.workers=1", "stages.second.training.keep=1")
    assert train_recipe(allowed, tmp_path / "run", resume=True, device="cpu").steps == 3


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (["data.kind=voc", "data.root=nowhere"], "stage second: nowhere: no such folder"),
        (["data.kind=voc", "data.root=VOC", "data.train=train"], r"stage second: its data has 21 classes .*that of stage first 6 "),
    ],
)
def test_data_of_a_later_stage_is_met_before_the_first(path: Path, tmp_path: Path, second: list[str], message: str) -> None:
    import numpy as np
    from PIL import Image

    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "VOC" / folder).mkdir(parents=True)
    Image.new("RGB", (50, 50)).save(tmp_path / "VOC/JPEGImages/a.jpg")
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(tmp_path / "VOC/SegmentationClass/a.png")
    (tmp_path / "VOC/ImageSets/Segmentation/train.txt").write_text("a\n")
    overrides = [f"stages.second.{setting}".replace("VOC", str(tmp_path / "VOC")) for setting in second]
    with pytest.raises(DataError, match=message):
        train_recipe(recipe(path, *overrides), tmp_path / "run", device="cpu")
    with pytest.raises(DataError, match=message):
        forecast_recipe(recipe(path, *overrides), "cpu")
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir() if entry.name[0] != ".") == ["exit.json", "lock", "recipe.yaml"]
    # Nothing was begun: the mended command starts without --resume.
    assert train_recipe(recipe(path), tmp_path / "run", device="cpu").steps == 3


def test_a_failed_start_of_the_first_stage_is_in_nobodys_way(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.safetensors"):
        train_recipe(recipe(path, "training.start_from=none.safetensors"), tmp_path / "run", device="cpu")
    assert (tmp_path / "run" / "1-first").is_dir()
    assert train_recipe(recipe(path), tmp_path / "run", device="cpu").steps == 3


def test_the_first_stage_alone_starts_from_elsewhere(path: Path) -> None:
    runs = chain_stages(recipe(path, "training.start_from=camvid-lite0"), Path("run"))
    assert [stage.training.start_from for stage in runs.values()] == ["camvid-lite0", "run/1-first/model-last.safetensors"]


def test_forecast_of_all_stages(path: Path, tmp_path: Path) -> None:
    found = forecast_recipe(recipe(path), "cpu")
    assert isinstance(found, StagesForecast)
    values = found.as_dict()
    assert [(stage["train_images"], stage["val_images"]) for stage in values["stages"].values()] == [(24, 50), (50, 0)]
    assert values["hours"] == pytest.approx(sum(stage["hours"] for stage in values["stages"].values()))
    assert found.lines()[0] == "stage first:"
    assert found.lines()[-1].startswith("all stages take about")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["two.yaml"]


PROGRAM = """
import os, signal, sys
from seenet.cli import main
from seenet.training.trainer import Trainer
at, update = int(sys.argv[1]), Trainer.update
def killed(self, batches):
    global at
    at -= 1
    if at == 0 and os.environ.get("RANK", "0") == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return update(self, batches)
Trainer.update = killed
main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[sys.executable], TWO], ids=["one", "two"])
def test_killed_in_the_second_stage(path: Path, tmp_path: Path, launcher: list[str]) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)

    def run(at: int, out: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*launcher, "program.py", str(at), "train", "two.yaml", "--out", out, "--device", "cpu", "--json", *more], cwd=tmp_path,
            capture_output=True, text=True, timeout=600, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}"},
        )  # fmt: skip

    done = run(0, "whole")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {"out": "whole", "steps": 3, "miou": None}
    assert run(5, "cut").returncode != 0
    assert len(losses(tmp_path / "cut" / "1-first")) == 2
    assert len(losses(tmp_path / "cut" / "2-second")) == 2
    done = run(0, "cut", "--resume")
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("1-first", "2-second"):
        assert losses(tmp_path / "cut" / name) == losses(tmp_path / "whole" / name)
    assert same(weights(tmp_path / "cut" / "model.safetensors"), weights(tmp_path / "whole" / "model.safetensors"))
    assert load_model(tmp_path / "cut").notes["step"] == 3
