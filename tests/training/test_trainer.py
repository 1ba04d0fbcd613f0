"""A training run as a whole: resumed bit for bit, and no bad number reaches its weights."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from seenet.core.errors import DataError, NotFiniteError, Stopped, UsageError
from seenet.core.recipe_files import load_recipe
from seenet.data.shapes import SHAPES
from seenet.evaluation.run import run_evaluation
from seenet.model import create_model
from seenet.model.files import load_model, save_model
from seenet.training import checkpoint
from seenet.training.trainer import Trainer, train
from tests.training.tiny import (
    copied,
    equal,
    exit_codes,
    first_batches,
    losses,
    recipe,
    same_models,
    signal_in,
    trainer_of,
)

EVERYTHING = [
    "optimizer.kind=adamw", "training.workers=1", "training.accumulate=2",
    "transforms.rotation=10", "transforms.jitter=0.2", "loss.auxiliary=0.4", "loss.ohem=0.7",
    "loss.class_weights=median_frequency", "optimizer.clip=1", "optimizer.warmup=2",
]  # fmt: skip
TWO_STEPS = ["training.steps=2", "training.validate_every=0"]
PEER = [*TWO_STEPS, "training.batch=2", "training.ema=null"]


@pytest.mark.parametrize(
    "overrides",
    [pytest.param(["optimizer.kind=sgd"], marks=pytest.mark.slow), EVERYTHING],
    ids=["sgd", "all"],
)
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, overrides: list[str]) -> None:
    settings = recipe(*overrides)
    whole = train(settings, tmp_path / "whole", device="cpu")
    with signal_in(4), pytest.raises(Stopped) as caught:
        train(settings, tmp_path / "cut", device="cpu")
    assert caught.value.exit_code == exit_codes(tmp_path / "cut")["0"] == 143
    assert len(losses(tmp_path / "cut")) == 4
    resumed = train(settings, tmp_path / "cut", resume=True, device="cpu")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert resumed.miou == whole.miou
    assert same_models(tmp_path / "cut", tmp_path / "whole")


def test_a_finished_run_is_not_changed(tmp_path: Path) -> None:
    settings, run = recipe("training.steps=3"), tmp_path / "run"
    first = train(settings, run, device="cpu", command="one")
    kept = ("model.safetensors", "model-last.safetensors", "val.json", "metrics.jsonl")
    before = {name: (run / name).read_bytes() for name in kept}
    again = train(settings, run, resume=True, device="cpu", command="other")
    assert again.miou == first.miou
    assert before == {name: (run / name).read_bytes() for name in kept}
    # Killed between the last checkpoint and the end of the last validation, it is validated again.
    (run / "model-last.safetensors").unlink()
    assert train(settings, run, resume=True, device="cpu").miou == first.miou
    assert (run / "model-last.safetensors").is_file()


def test_golden_losses(tmp_path: Path) -> None:
    """A refactoring must not move them; processors differ in the last bits, which grow by steps."""
    settings = ["training.steps=3", "training.validate_every=0", "optimizer.rate=0.01"]
    train(recipe(*settings, "optimizer.kind=sgd"), tmp_path / "run", device="cpu")
    golden = json.loads((Path(__file__).parent / "golden_losses.json").read_text())
    assert losses(tmp_path / "run") == pytest.approx(golden, rel=2e-3)


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    plain = ["kind=sgd", "rate=1", "head_factor=1", "momentum=0", "weight_decay=0", "clip=0.01"]
    trainer = trainer_of(recipe(*(f"optimizer.{setting}" for setting in plain)), tmp_path)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.update(first_batches(trainer))
    after = [parameter.detach() for parameter in trainer.model.parameters()]
    moved = nn.utils.get_total_norm(map(torch.sub, after, before))
    assert float(moved) == pytest.approx(0.01, rel=1e-3)


def test_an_overflow_skips_the_step_and_lowers_the_loss_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seenet.training.precision.is_trustworthy", lambda *_: True)
    trainer = trainer_of(recipe("training.precision=fp16", "optimizer.weight_decay=0"), tmp_path)
    batches, before = first_batches(trainer), list(map(torch.clone, trainer.model.parameters()))
    trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    trainer.update(batches)
    assert all(map(torch.equal, trainer.model.parameters(), before))
    assert trainer.precision.scaler.get_scale() == 2.0**126
    assert trainer.ema is not None and trainer.ema.updates == 0
    trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    next(trainer.model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NotFiniteError, match="loss scale"):
        trainer.update(batches)


@pytest.mark.parametrize("what", ["loss nan", "statistics of a batch norm that overflow"])
def test_numbers_that_are_not_finite_stop_before_the_update(tmp_path: Path, what: str) -> None:
    trainer = trainer_of(recipe(), tmp_path)
    batches = first_batches(trainer)
    with torch.no_grad():
        if what == "loss nan":
            batches[0][0][0, 0, 0, 0] = float("nan")
        else:
            next(trainer.model.parameters()).mul_(1e25)
    before = list(map(torch.clone, trainer.model.parameters()))
    with pytest.raises(NotFiniteError, match=rf"step 1: .*{what}.*train-000"):
        trainer.update(batches)
    assert all(map(torch.equal, trainer.model.parameters(), before))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_weights_that_overflow_are_not_saved(tmp_path: Path, value: float) -> None:
    trainer = trainer_of(recipe("training.steps=3"), tmp_path)

    def overflow(*_: object) -> None:
        if trainer.step == 1:
            nn.init.constant_(list(trainer.model.parameters())[3], value)

    trainer.optimizer.register_step_post_hook(overflow)
    with pytest.raises(NotFiniteError, match=r"step 2: loss \d.*weights that overflow"):
        trainer.fit()
    assert checkpoint.newest(tmp_path / "checkpoints").state["step"] == 1  # type: ignore[union-attr]
    assert not (tmp_path / "model.safetensors").exists()


def test_a_resumed_run_keeps_the_precision_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "seenet.training.precision"
    monkeypatch.setattr(f"{module}.is_trustworthy", lambda *_: True)
    settings = recipe("training.precision=auto", "training.steps=2")
    for seconds in ({"fp32": 2.0, "bf16": 1.0}, {"fp32": 1.0, "bf16": 2.0}):
        monkeypatch.setattr(
            f"{module}._seconds_a_pass", lambda *given, seconds=seconds: seconds[given[2].name]
        )
        trainer = trainer_of(settings, tmp_path)
        assert trainer.precision.name == "bf16"
        trainer.save()
    # A processor that computes it wrongly does not use it, whatever the run had.
    monkeypatch.setattr(f"{module}.is_trustworthy", lambda name, *_: name == "fp32")
    assert trainer_of(settings, tmp_path).precision.name == "fp32"


def test_a_batch_of_one_trains_and_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = recipe(*TWO_STEPS, "training.batch=1")
    assert train(settings, tmp_path / "run", device="cpu").steps == 2
    assert "batch norm sees 1 image" in caplog.text


@pytest.mark.parametrize("overrides", [[], [*PEER, "model.variant=smp-upernet"]])
def test_recomputed_activations_change_nothing(tmp_path: Path, overrides: list[str]) -> None:
    runs = [tmp_path / "plain", tmp_path / "recomputed"]
    for run in runs:
        setting = f"training.activation_checkpointing={run.name == 'recomputed'}"
        train(recipe(*TWO_STEPS, *overrides, setting), run, device="cpu")
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=1e-5)
    if not overrides:
        plain, recomputed = (load_file(run / "model.safetensors") for run in runs)
        assert all(torch.allclose(plain[key], recomputed[key], atol=1e-6) for key in plain)
        # Validation scores a copy: it must not run the backbone from which it was copied.
        scored = [json.loads((run / "val.json").read_text())["loss"] for run in runs]
        assert scored[1] == pytest.approx(scored[0], rel=1e-4)


def build(num_classes: int) -> nn.Module:
    network = nn.Sequential()
    convolution = nn.Conv2d(3, 8, 3, stride=4, padding=1, bias=False)
    network.backbone = nn.Sequential(convolution, nn.BatchNorm2d(8), nn.ReLU())
    network.head = nn.Conv2d(8, num_classes, 1)
    return network


@pytest.mark.parametrize(
    "overrides",
    [["model.variant=smp-fpn", "loss.auxiliary=0.4"], [f"model.factory={__name__}:build"]],
)
def test_other_networks_are_trained_scored_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = recipe(*PEER, *overrides)
    train(settings, tmp_path / "run", device="cpu")
    scored = run_evaluation("run", device="cpu", factory=settings.model.factory).result
    assert scored["confusion"] == json.loads(Path("run/val.json").read_text())["confusion"]
    assert train(settings, tmp_path / "run", resume=True, device="cpu").steps == 2


def moved_by_training(trainer: Trainer, part: nn.Module) -> set[str]:
    """Train to the end; return the names of tensors in a part of the network that have changed."""
    before = copied(part)
    trainer.fit()
    return {key for key, value in part.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize(
    "overrides", [TWO_STEPS, [*PEER, "model.variant=torchvision-deeplabv3"]], ids=["ours", "peer"]
)
def test_frozen_parts_do_not_move(tmp_path: Path, overrides: list[str]) -> None:
    frozen = ["training.freeze_stages=2", "training.freeze_norms=true", "training.ema=null"]
    trainer = trainer_of(recipe(*overrides, *frozen), tmp_path)
    moved = moved_by_training(trainer, trainer.model.backbone)
    assert moved
    assert all(key.split(".")[1] in {"layer3", "layer4"} and "running" not in key for key in moved)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_probe_moves_alone_and_a_joint_one_with_all(tmp_path: Path, frozen: bool) -> None:
    path = tmp_path / "source.safetensors"
    options: dict[str, Any] = {"backbone": "resnet10t", "width": 8, "output_stride": 16}
    save_model(path, create_model("seenet", num_classes=SHAPES.num_classes, **options), SHAPES)
    small = ["data.size=42", "data.count=4", "data.val=null", "transforms.crop=42"]
    probe = ["model.probe=B3+EB2", f"model.weights={path}", "model.p_out=auto"]
    settings = [*TWO_STEPS, *small, *probe, f"training.freeze_below={frozen}", "training.batch=2"]
    trainer = trainer_of(recipe(*settings), tmp_path)
    keys = trainer.model.state_dict().keys()
    moved = moved_by_training(trainer, trainer.model)
    assert moved == {key for key in keys if not frozen or key.startswith("head.")}
    assert equal(load_model(tmp_path / "model.safetensors").model.state_dict(), trainer.ema.state)
    below = [module for part in trainer.model.below() for module in part.modules()]
    assert all(module.training != frozen for module in below)
    features = trainer.model.forward_features(torch.randn(2, 3, 42, 42))
    assert features["logits"].requires_grad
    assert all(features[key].requires_grad != frozen for key in ("B1", "B2", "B3", "P2"))
    # It resumes from its own checkpoint.
    assert trainer_of(trainer.recipe, tmp_path).fit().steps == 2


def test_freezing_below_belongs_to_probes() -> None:
    with pytest.raises(UsageError, match=r"training\.freeze_below"):
        load_recipe("shapes", ["training.freeze_below=true"])


def test_ranks_with_different_checkpoints_stop(tmp_path: Path) -> None:
    """As if each machine had its own folder under the same name."""
    second = SimpleNamespace(rank=1, world=1, first=False, from_first=lambda value: 0, any=bool)
    trainer = trainer_of(recipe(), tmp_path)
    trainer.step = 2
    trainer.save()
    with pytest.raises(DataError, match=r"rank 1 .*checkpoint of step 2, rank 0 that of step 0"):
        trainer_of(recipe(), tmp_path, second)  # type: ignore[arg-type]
