"""`--dry-run`: the cost of a run, without writing anything."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from seenet.cli import main
from seenet.core.errors import NotFiniteError
from seenet.training.forecast import forecast
from seenet.training.losses import LossModel
from seenet.training.setup import step_batches
from seenet.training.trainer import Learner
from tests.training.tiny import TINY, copied, equal, recipe, trainer_of


@pytest.mark.parametrize(("steps", "validations"), [(1, 1), (3000, 3)])
def test_a_forecast_counts_the_whole_run_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    steps: int,
    validations: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [*TINY, f"training.steps={steps}", "training.validate_every=1000"]
    with pytest.raises(SystemExit) as caught:
        main(["train", "shapes", *settings, "--dry-run", "--json", "--device", "cpu"])
    assert not caught.value.code
    found = json.loads(capsys.readouterr().out)
    assert (found["train_images"], found["val_images"], found["precision"]) == (30, 50, "fp32")
    assert found["step_seconds"] > 0 and found["memory_mib"] >= 0
    seconds = steps * found["step_seconds"] + validations * 50 * found["image_seconds"]
    assert found["hours"] == pytest.approx(seconds / 3600)
    assert not list(tmp_path.iterdir())


def test_bad_data_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["train", "camvid-lite0", "--dry-run"])
    assert caught.value.code == 4


EVERYTHING = [
    "training.accumulate=2", "optimizer.kind=adamw", "optimizer.clip=0.1", "optimizer.warmup=5",
    "loss.auxiliary=0.4", "loss.class_weights=median_frequency", "training.freeze_stages=1",
    "training.activation_checkpointing=true", "training.workers=1",
]  # fmt: skip


@pytest.mark.parametrize(
    "overrides", [["training.ema=null", "optimizer.kind=sgd"], EVERYTHING], ids=["sgd", "all"]
)
def test_its_steps_are_those_of_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    states: list[dict[str, Tensor]] = []
    update = Learner.update

    def recorded(learner: Learner, micro_batches: object) -> tuple[float, float]:
        numbers = update(learner, micro_batches)  # type: ignore[arg-type]
        average = learner.ema.state if learner.ema else {}
        average = {f"average {key}": value.clone() for key, value in average.items()}
        states.append({**copied(learner.model), **average, "numbers": torch.tensor(numbers)})
        return numbers

    monkeypatch.setattr(Learner, "update", recorded)
    settings = recipe("training.steps=30", *overrides)
    forecast(settings, "cpu")
    trainer = trainer_of(settings, tmp_path)
    batches = step_batches(settings, trainer.data, trainer.model, first_step=0, rank=0, world=1)
    for trainer.step in range(2):
        trainer.update(next(batches))
    batches.close()
    assert len(states) == 4
    assert equal(states[0], states[2]) and equal(states[1], states[3])
    assert all(torch.isfinite(value).all() for value in states[1].values())
    assert not equal(states[0], states[1])


def test_what_training_compiles_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    forecast(recipe("training.compile=true"), "cpu")
    assert [type(module) for module in compiled] == [LossModel]


def test_a_loss_that_is_not_finite_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: LossModel, images: Tensor, masks: Tensor) -> Tensor:
        return next(self.parameters()).sum() * float("nan")

    monkeypatch.setattr(LossModel, "forward", broken)
    with pytest.raises(NotFiniteError, match="dry run: step 1: loss nan"):
        forecast(recipe(), "cpu")
