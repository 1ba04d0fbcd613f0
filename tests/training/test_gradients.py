"""One step: bounded, and stopped before anything that is not finite reaches the weights."""

import math
from pathlib import Path

import pytest
import torch

from seenet.core.errors import NotFiniteError
from seenet.training import checkpoint
from seenet.training import trainer as module
from seenet.training.trainer import Trainer
from tests.training.test_trainer import recipe


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    settings = recipe(
        "optimizer.kind=sgd",
        "optimizer.rate=1",
        "optimizer.head_factor=1",
        "optimizer.momentum=0",
        "optimizer.weight_decay=0",
        "optimizer.clip=0.01",
    )
    trainer = Trainer(settings, tmp_path, torch.device("cpu"), module.Ranks())
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.update(next(module.step_batches(settings, trainer.data, trainer.model, first_step=0, rank=0, world=1)))
    moved = torch.cat([(now - then).flatten() for now, then in zip(trainer.model.parameters(), before, strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(0.01, rel=1e-3)


def test_overflow_skips_the_step_and_lowers_the_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("seenet.training.precision.is_trustworthy", lambda *_: True)
    caplog.set_level("INFO", "seenet")
    settings = recipe("training.precision=fp16", "optimizer.weight_decay=0")
    trainer = Trainer(settings, tmp_path, torch.device("cpu"), module.Ranks())
    assert trainer.precision.name == "fp16"
    batches = next(module.step_batches(settings, trainer.data, trainer.model, first_step=0, rank=0, world=1))
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    trainer.update(batches)
    assert all(torch.equal(now, then) for now, then in zip(trainer.model.parameters(), before, strict=True))
    assert trainer.precision.scaler.get_scale() == 2.0**126
    assert trainer.ema is not None and trainer.ema.updates == 0
    assert "scale lowered" in caplog.text
    trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    next(trainer.model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NotFiniteError, match="loss scale"):
        trainer.update(batches)


def test_nan_stops_before_the_update(tmp_path: Path) -> None:
    trainer = Trainer(recipe(), tmp_path, torch.device("cpu"), module.Ranks())
    batches = module.step_batches(trainer.recipe, trainer.data, trainer.model, first_step=0, rank=0, world=1)
    ((images, masks, draws),) = next(batches)
    before = {key: value.clone() for key, value in trainer.model.named_parameters()}
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(NotFiniteError, match=r"step 1: loss nan.*train-000"):
        trainer.update(((images, masks, draws),))
    assert all(torch.equal(value, before[key]) for key, value in trainer.model.named_parameters())


def test_statistics_that_overflow_stop_before_the_update(tmp_path: Path) -> None:
    trainer = Trainer(recipe(), tmp_path, torch.device("cpu"), module.Ranks())
    batches = next(module.step_batches(trainer.recipe, trainer.data, trainer.model, first_step=0, rank=0, world=1))
    with torch.no_grad():
        next(trainer.model.parameters()).mul_(1e25)
    before = {key: value.clone() for key, value in trainer.model.named_parameters()}
    with pytest.raises(NotFiniteError, match=r"step 1: loss \d.*statistics of a batch norm that overflow.*train-000"):
        trainer.update(batches)
    assert all(torch.equal(value, before[key]) for key, value in trainer.model.named_parameters())


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_weights_that_overflow_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    trainer = Trainer(recipe("training.steps=3", "training.checkpoint_every=1"), tmp_path, torch.device("cpu"), module.Ranks())
    step = trainer.optimizer.step

    def overflowing() -> None:
        step()
        if trainer.step == 1:
            with torch.no_grad():
                parameter = list(trainer.model.parameters())[3]
                parameter[(0,) * parameter.dim()] = value

    monkeypatch.setattr(trainer.optimizer, "step", overflowing)
    with pytest.raises(NotFiniteError, match=r"step 2: loss \d.*weights that overflow in the update"):
        trainer.fit()
    assert checkpoint.newest(tmp_path / "checkpoints").state["step"] == 1  # type: ignore[union-attr]
    assert not (tmp_path / "model.safetensors").exists()
