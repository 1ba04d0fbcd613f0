"""`--dry-run`: what a run would take, without writing anything."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from seenet.cli import main
from seenet.core.errors import NotFiniteError
from seenet.core.recipe_files import load_recipe
from seenet.core.settings import Recipe
from seenet.training.forecast import forecast
from seenet.training.losses import LossModel
from seenet.training.setup import ONE_PROCESS, step_batches
from seenet.training.trainer import Learner, Trainer

TINY = [
    "model.backbone=resnet10t", "model.weights=null", "model.width=8", "model.p_out=16", "data.size=48", "data.count=20",
    "transforms.crop=48", "training.batch=2", "training.workers=0",
]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 3000])
def test_forecast_counts_the_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], steps: int
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(
            ["train", "shapes", *TINY, f"training.steps={steps}", "training.validate_every=1000", "--dry-run", "--json", "--device", "cpu"]
        )
    assert not caught.value.code
    found = json.loads(capsys.readouterr().out)
    assert (found["train_images"], found["val_images"], found["precision"]) == (20, 50, "fp32")
    assert found["step_seconds"] > 0
    assert found["memory_mib"] >= 0
    validations = 3 if steps == 3000 else 1
    expected = (steps * found["step_seconds"] + validations * 50 * found["image_seconds"]) / 3600
    assert found["hours"] == pytest.approx(expected)
    assert not list(tmp_path.iterdir())


def test_forecast_meets_bad_data_at_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["train", "camvid-lite0", "--dry-run"])
    assert caught.value.code == 4
    assert "SegNet" in capsys.readouterr().err


def steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Fills, update by update, with the step's loss and rate, the weights and their average."""
    found: list[dict[str, Tensor]] = []
    update = Learner.update

    def noting(learner: Learner, micro_batches: object) -> tuple[float, float]:
        loss, rate = update(learner, micro_batches)  # type: ignore[arg-type]
        state = {key: value.clone() for key, value in learner.model.state_dict().items()}
        average = {f"average {key}": value.clone() for key, value in (learner.ema.state if learner.ema else {}).items()}
        found.append({**state, **average, "loss": torch.tensor(loss), "rate": torch.tensor(rate)})
        return loss, rate

    monkeypatch.setattr(Learner, "update", noting)
    return found


def recipe(*overrides: str) -> Recipe:
    return load_recipe("shapes", [*TINY, "training.steps=30", "training.ema=null", "training.precision=fp32", *overrides])


MUCH = [
    "training.batch=4", "training.accumulate=2", "training.ema=0.9", "optimizer.kind=adamw", "optimizer.clip=0.1", "optimizer.warmup=5",
    "loss.auxiliary=0.4", "loss.class_weights=median_frequency", "training.activation_checkpointing=true", "training.freeze_stages=1",
    "training.workers=1",
]  # fmt: skip


@pytest.mark.parametrize("overrides", [["optimizer.kind=sgd", "optimizer.rate=0.001"], MUCH], ids=["sgd", "much"])
def test_the_steps_are_the_trainers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]) -> None:
    found = steps(monkeypatch)
    settings = recipe(*overrides)
    forecast(settings, "cpu")
    forecasted, trainer = found[:], Trainer(settings, tmp_path, torch.device("cpu"), ONE_PROCESS)
    batches = step_batches(settings, trainer.data, trainer.model, first_step=0, rank=0, world=1)
    found.clear()
    for trainer.step in range(2):
        trainer.update(next(batches))
    batches.close()
    assert len(forecasted) == len(found) == 2
    for mine, theirs in zip(forecasted, found, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
        assert all(torch.isfinite(value).all() for value in mine.values())
    moved = max(float((forecasted[1][key] - value).abs().max()) for key, value in forecasted[0].items() if key.endswith("weight"))
    assert 0 < moved < 1


def test_what_is_compiled_in_training_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    forecast(recipe("training.compile=true"), "cpu")
    assert [type(module) for module in compiled] == [LossModel]


def test_a_run_that_would_end_at_once_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossModel, "forward", lambda self, images, masks: next(self.parameters()).sum() * float("nan"))
    with pytest.raises(NotFiniteError, match="dry run: step 1: loss nan"):
        forecast(recipe(), "cpu")
