"""Recipes with stages: each starts from the last weights of the previous one, and is resumed."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from seenet.core.errors import DataError, Stopped, UsageError
from seenet.core.recipe_files import load_recipe
from seenet.core.settings import Recipe
from seenet.model.files import load_model
from seenet.report.page import write_report
from seenet.training import stages as module
from seenet.training.stages import StagesForecast, chain_stages, forecast_recipe, train_recipe
from seenet.training.trainer import Trainer
from tests.faults.fault import tree
from tests.training.launching import run, torchrun
from tests.training.tiny import (
    before_each,
    copied,
    equal,
    exit_codes,
    losses,
    same_weights,
    signal_in,
    write_pairs,
)

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
STAGES = ("1-first", "2-second")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "two.yaml").write_text(TEXT)
    return tmp_path / "two.yaml"


def recipe(path: Path, *overrides: str) -> Recipe:
    return load_recipe(path, list(overrides))


def test_the_second_stage_starts_from_the_last_weights_of_the_first(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, out = [], tmp_path / "run"
    with before_each(Trainer, "update", lambda self, _: begun.append(copied(self.model))):
        result = train_recipe(recipe(path), out, device="cpu", command="seenet train two")
    last = out / "1-first" / "model-last.safetensors"
    # The first stage makes two updates.
    assert equal(begun[2], load_file(last)) and not equal(begun[0], begun[2])
    second = (out / "2-second" / "model.safetensors").read_bytes()
    assert (out / "model.safetensors").read_bytes() == second
    assert (result.out, result.steps, result.miou) == (out, 3, None)
    assert [len(losses(out / name)) for name in STAGES] == [2, 3]
    assert load_recipe(out / "2-second" / "recipe.yaml").training.start_from == str(last)
    assert load_recipe(out / "recipe.yaml") == recipe(path)
    # A stage is an ordinary run; the whole has no report of its own.
    assert write_report(out / "1-first", device="cpu", images=1).is_file()
    with pytest.raises(UsageError, match=r"1-first, .*2-second"):
        write_report(out, device="cpu")
    # Finished stages are not trained again; without --resume the run is refused.
    before = tree(out, "*.safetensors")
    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("trained again"))
    assert train_recipe(recipe(path), out, resume=True, device="cpu") == result
    assert tree(out, "*.safetensors") == before
    with pytest.raises(DataError, match="--resume"):
        train_recipe(recipe(path), out, device="cpu")


def test_a_run_stopped_in_the_second_stage_is_resumed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_recipe(recipe(path), whole, device="cpu")
    with signal_in(4), pytest.raises(Stopped, match=r"2-second: stopped after step 2") as caught:
        train_recipe(recipe(path), cut, device="cpu")
    assert caught.value.exit_code == exit_codes(cut)["0"] == 143
    assert not (cut / "model.safetensors").exists()
    # Under another name of the folder, as if it was moved.
    cut.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    before = tree(Path("moved/1-first"), "*.safetensors")
    train_recipe(recipe(path), Path("moved"), resume=True, device="cpu")
    for name in STAGES:
        assert losses(tmp_path / "moved" / name) == losses(whole / name)
    assert same_weights(Path("moved"), whole)
    assert tree(Path("moved/1-first"), "*.safetensors") == before


def test_a_resumed_run_must_have_the_same_stages(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with signal_in(1), pytest.raises(Stopped):
        train_recipe(recipe(path), out, device="cpu")
    changed = recipe(path, "stages.second.optimizer.rate=0.5")
    with pytest.raises(UsageError, match=r"stages\.second\.optimizer\.rate was 0\.001 .* 0\.5"):
        train_recipe(changed, out, resume=True, device="cpu")
    path.write_text(TEXT.replace("second:", "third:"))
    with pytest.raises(UsageError, match="stages were first, second and are now first, third"):
        train_recipe(recipe(path), out, resume=True, device="cpu")
    path.write_text(TEXT)
    allowed = recipe(path, "training.workers=1", "stages.second.training.keep=1")
    assert train_recipe(allowed, out, resume=True, device="cpu").steps == 3


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("nowhere", "stage second: nowhere"),
        ("pairs", r"stage second: its data has 2 classes .*that of stage first has 6 "),
    ],
)
def test_data_of_a_later_stage_is_checked_before_the_first(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pairs(Path("pairs"), label=1)
    wrong = recipe(path, "stages.second.data.kind=folder", f"stages.second.data.root={root}")
    with pytest.raises(DataError, match=message):
        train_recipe(wrong, Path("run"), device="cpu")
    with pytest.raises(DataError, match=message):
        forecast_recipe(wrong, "cpu")
    # Nothing was begun: the corrected command starts without --resume.
    assert train_recipe(recipe(path), Path("run"), device="cpu").steps == 3


def test_only_the_first_stage_starts_from_elsewhere(path: Path) -> None:
    runs = chain_stages(recipe(path, "training.start_from=camvid-lite0"), Path("run"))
    starts = [stage.training.start_from for stage in runs.values()]
    assert starts == ["camvid-lite0", "run/1-first/model-last.safetensors"]


def test_a_forecast_of_all_stages(path: Path, tmp_path: Path) -> None:
    found = forecast_recipe(recipe(path), "cpu")
    assert isinstance(found, StagesForecast)
    stages = found.as_dict()["stages"].values()
    images = [(stage["train_images"], stage["val_images"]) for stage in stages]
    assert images == [(24, 50), (50, 0)]
    assert found.as_dict()["hours"] == pytest.approx(sum(stage["hours"] for stage in stages))
    assert [line for line in found.lines() if line.startswith("stage")] == [
        "stage first:",
        "stage second:",
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["two.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_killed_in_the_second_stage_is_resumed(
    path: Path, tmp_path: Path, ranks: int
) -> None:
    launcher = torchrun(ranks)
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def train(fault: str, out: Path, *more: str) -> int:
        words = ["-m", "tests.training.patched", "strike", fault, "train", str(path)]
        return run(*launcher, *words, "--out", str(out), "--device", "cpu", *more)[0]

    assert train("::", whole) == 0
    assert train("0:5:SIGKILL", cut) != 0
    assert [len(losses(cut / name)) for name in STAGES] == [2, 2]
    assert train("::", cut, "--resume") == 0
    for name in STAGES:
        assert losses(cut / name) == losses(whole / name)
    assert same_weights(cut, whole)
    assert load_model(cut).notes["step"] == 3
    assert json.loads((whole / "exit.json").read_text()).keys() == set("01"[:ranks])
