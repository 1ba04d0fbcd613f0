"""`--dry-run`: the cost of a run, without writing anything."""

import json
from pathlib import Path

import pytest
from torch import nn

from seenet.cli import main
from seenet.core.errors import Stopped
from seenet.training.forecast import forecast
from seenet.training.losses import LossModel
from seenet.training.setup import Batch
from seenet.training.trainer import Learner, train
from tests.training.tiny import TINY, lines, recipe, signal_in


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
    """The loss of the second step shows the update of the first."""
    found, update = [], Learner.update

    def recorded(learner: Learner, micro_batches: tuple[Batch, ...]) -> tuple[float, float]:
        found.append(update(learner, micro_batches))
        return found[-1]

    settings = recipe("training.steps=30", *overrides)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", recorded)
        forecast(settings, "cpu")
    with signal_in(2), pytest.raises(Stopped):
        train(settings, tmp_path, device="cpu")
    assert found == [(line["loss"], line["rate"]) for line in lines(tmp_path)]
    assert found[0][0] != found[1][0]


def test_what_training_compiles_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    forecast(recipe("training.compile=true"), "cpu")
    assert [type(module) for module in compiled] == [LossModel]
