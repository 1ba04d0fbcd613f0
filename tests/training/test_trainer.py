"""A run as a whole: stopped anywhere it goes on bit for bit, and nothing bad reaches its weights."""

import json
import math
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from seenet.core.errors import NotFiniteError, Stopped, UsageError
from seenet.core.labels import SHAPES
from seenet.core.recipe_files import load_recipe
from seenet.core.settings import Recipe
from seenet.evaluation.run import run_evaluation
from seenet.model import create_model
from seenet.model.files import load_model, save_model
from seenet.training import checkpoint
from seenet.training.distributed import Ranks
from seenet.training.setup import Batch, step_batches
from seenet.training.trainer import Trainer, train

TINY = [
    "model.backbone=resnet10t", "model.width=8", "model.p_out=16", "model.weights=null",
    "data.size=48", "data.count=30", "transforms.crop=48",
    "training.steps=6", "training.batch=4", "training.workers=0",
    "training.validate_every=3", "training.checkpoint_every=1",
    "training.ema=0.9", "training.precision=fp32",
]  # fmt: skip


def recipe(*overrides: str) -> Recipe:
    return load_recipe("shapes", [*TINY, *overrides])


def trainer_of(settings: Recipe, folder: Path) -> Trainer:
    return Trainer(settings, folder, torch.device("cpu"), Ranks())


def first_batches(trainer: Trainer) -> tuple[Batch, ...]:
    return next(step_batches(trainer.recipe, trainer.data, trainer.model, first_step=0, rank=0, world=1))


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


class StopAfter:
    """Sends this process a signal after so many updates."""

    def __init__(self, steps: int, number: signal.Signals) -> None:
        self.steps, self.number, self.update = steps, number, Trainer.update

    def __call__(self, trainer: Trainer, batches: object) -> tuple[float, float]:
        result = self.update(trainer, batches)  # type: ignore[arg-type]
        if trainer.step + 1 == self.steps:
            signal.raise_signal(self.number)
        return result


EVERYTHING = [
    "optimizer.kind=adamw", "training.workers=1", "training.accumulate=2", "transforms.rotation=10", "transforms.jitter=0.2",
    "loss.auxiliary=0.4", "loss.class_weights=median_frequency", "loss.ohem=0.7", "optimizer.clip=1", "optimizer.warmup=2",
]  # fmt: skip


@pytest.mark.parametrize("overrides", [["optimizer.kind=sgd"], ["optimizer.kind=adamw"], EVERYTHING], ids=["sgd", "adamw", "everything"])
def test_resumed_run_is_the_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]) -> None:
    settings = recipe(*overrides)
    whole = train(settings, tmp_path / "whole", device="cpu")
    with monkeypatch.context() as patch:
        stop = StopAfter(4, signal.SIGTERM)
        patch.setattr(Trainer, "update", lambda self, batches: stop(self, batches))
        with pytest.raises(Stopped) as caught:
            train(settings, tmp_path / "cut", device="cpu")
    assert caught.value.exit_code == 143
    assert json.loads((tmp_path / "cut" / "exit.json").read_text())["0"]["code"] == 143
    assert len(losses(tmp_path / "cut")) == 4
    resumed = train(settings, tmp_path / "cut", resume=True, device="cpu")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert resumed.miou == whole.miou
    for name in ("model.safetensors", "model-last.safetensors"):
        first, second = load_file(tmp_path / "whole" / name), load_file(tmp_path / "cut" / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    settings = recipe("training.steps=3")
    first = train(settings, tmp_path / "run", device="cpu", command="one")
    before = {
        path: path.read_bytes()
        for path in (tmp_path / "run").glob("*")
        if path.suffix in {".safetensors", ".jsonl"} or path.name == "val.json"
    }
    again = train(settings, tmp_path / "run", resume=True, device="cpu", command="other")
    assert again.miou == first.miou
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(before) == 4
    # Killed between the last checkpoint and the end of the last validation, it is validated again.
    (tmp_path / "run" / "model-last.safetensors").unlink()
    assert train(settings, tmp_path / "run", resume=True, device="cpu").miou == first.miou
    assert (tmp_path / "run" / "model-last.safetensors").is_file()


def test_golden_loss(tmp_path: Path) -> None:
    """Refactoring must not move it; processors differ in the last bits, which some steps later is more."""
    settings = recipe("training.steps=3", "training.validate_every=0", "optimizer.kind=sgd", "optimizer.rate=0.01")
    train(settings, tmp_path / "run", device="cpu")
    golden = json.loads((Path(__file__).parent / "golden_losses.json").read_text())
    assert losses(tmp_path / "run") == pytest.approx(golden, rel=2e-3)


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    settings = recipe(
        "optimizer.kind=sgd",
        "optimizer.rate=1",
        "optimizer.head_factor=1",
        "optimizer.momentum=0",
        "optimizer.weight_decay=0",
        "optimizer.clip=0.01",
    )
    trainer = trainer_of(settings, tmp_path)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.update(first_batches(trainer))
    moved = torch.cat([(now - then).flatten() for now, then in zip(trainer.model.parameters(), before, strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(0.01, rel=1e-3)


def test_overflow_skips_the_step_and_lowers_the_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("seenet.training.precision.is_trustworthy", lambda *_: True)
    caplog.set_level("INFO", "seenet")
    settings = recipe("training.precision=fp16", "optimizer.weight_decay=0")
    trainer = trainer_of(settings, tmp_path)
    assert trainer.precision.name == "fp16"
    batches = first_batches(trainer)
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
    trainer = trainer_of(recipe(), tmp_path)
    ((images, masks, draws),) = first_batches(trainer)
    before = {key: value.clone() for key, value in trainer.model.named_parameters()}
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(NotFiniteError, match=r"step 1: loss nan.*train-000"):
        trainer.update(((images, masks, draws),))
    assert all(torch.equal(value, before[key]) for key, value in trainer.model.named_parameters())


def test_statistics_that_overflow_stop_before_the_update(tmp_path: Path) -> None:
    trainer = trainer_of(recipe(), tmp_path)
    batches = first_batches(trainer)
    with torch.no_grad():
        next(trainer.model.parameters()).mul_(1e25)
    before = {key: value.clone() for key, value in trainer.model.named_parameters()}
    with pytest.raises(NotFiniteError, match=r"step 1: loss \d.*statistics of a batch norm that overflow.*train-000"):
        trainer.update(batches)
    assert all(torch.equal(value, before[key]) for key, value in trainer.model.named_parameters())


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_weights_that_overflow_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    trainer = trainer_of(recipe("training.steps=3", "training.checkpoint_every=1"), tmp_path)
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


def test_a_resume_keeps_the_precision_that_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seenet.training.precision.is_trustworthy", lambda *_: True)
    settings = recipe("training.precision=auto", "training.steps=2")
    for seconds, expected in (({"fp32": 2.0, "bf16": 1.0}, "bf16"), ({"fp32": 1.0, "bf16": 2.0}, "bf16")):
        monkeypatch.setattr("seenet.training.precision._seconds_a_pass", lambda _, __, precision, seconds=seconds: seconds[precision.name])
        trainer = trainer_of(settings, tmp_path)
        assert trainer.precision.name == expected
        trainer.save()
    # What another processor computes wrongly is not gone on with, whatever the run had.
    monkeypatch.setattr("seenet.training.precision.is_trustworthy", lambda name, *_: name == "fp32")
    assert trainer_of(settings, tmp_path).precision.name == "fp32"


def test_batch_of_one_trains_and_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = train(recipe("training.batch=1", "training.steps=2", "training.validate_every=0"), tmp_path / "run", device="cpu")
    assert result.steps == 2
    assert "batch norm sees 1 image" in caplog.text


def test_recomputed_activations_change_nothing(tmp_path: Path) -> None:
    results = []
    for setting in ("false", "true"):
        settings = recipe(f"training.activation_checkpointing={setting}", "training.steps=2", "training.validate_every=0")
        train(settings, tmp_path / setting, device="cpu")
        results.append(load_file(tmp_path / setting / "model.safetensors"))
    assert all(torch.allclose(results[0][key], results[1][key], atol=1e-6) for key in results[0])
    # Validation scores a copy with the averaged weights: the copy must not run the backbone it was copied from.
    scored = [json.loads((tmp_path / setting / "val.json").read_text()) for setting in ("false", "true")]
    assert scored[1]["loss"] == pytest.approx(scored[0]["loss"], rel=1e-4)


PEER_SETTINGS = [
    "model.backbone=resnet10t", "model.weights=null", "data.size=48", "data.count=20",
    "transforms.crop=48", "training.steps=2", "training.batch=2", "training.workers=0", "training.validate_every=0", "training.ema=null",
]  # fmt: skip


def peer_recipe(*overrides: str) -> Recipe:
    return load_recipe("shapes", [*PEER_SETTINGS, *overrides])


def build(num_classes: int) -> nn.Module:
    network = nn.Sequential()
    network.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    network.head = nn.Conv2d(8, num_classes, 1)
    return network


@pytest.mark.parametrize("settings", [["model.variant=smp-fpn", "loss.auxiliary=0.4"], [f"model.factory={__name__}:build"]])
def test_a_peer_is_trained_and_scored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = peer_recipe(*settings)
    train(chosen, tmp_path / "run", device="cpu")
    report = run_evaluation("run", device="cpu", factory=chosen.model.factory)
    assert report.result["confusion"] == json.loads(Path("run/val.json").read_text())["confusion"]
    # And goes on from its checkpoint, which here is its end.
    assert train(chosen, tmp_path / "run", resume=True, device="cpu").steps == 2


@pytest.mark.parametrize(
    "settings", [recipe("training.steps=2", "training.ema=null"), peer_recipe("model.variant=torchvision-deeplabv3")], ids=["ours", "peer"]
)
def test_frozen_parts_do_not_move(tmp_path: Path, settings: Recipe) -> None:
    frozen = settings.training.model_copy(update={"freeze_stages": 2, "freeze_norms": True})
    trainer = trainer_of(settings.model_copy(update={"training": frozen}), tmp_path)
    before = weights_of(trainer.model.backbone)
    trainer.fit()
    moved = {key for key, value in trainer.model.backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert all(key.split(".")[1] in {"layer3", "layer4"} and "running" not in key for key in moved)


def test_recomputed_activations_change_nothing_for_a_peer(tmp_path: Path) -> None:
    losses = []
    for setting in ("false", "true"):
        train(peer_recipe("model.variant=smp-upernet", f"training.activation_checkpointing={setting}"), tmp_path / setting, device="cpu")
        lines = [json.loads(line) for line in (tmp_path / setting / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


PROBE_SETTINGS = [
    "model.backbone=resnet10t", "model.width=8", "data.size=42", "data.count=4", "data.val=null", "transforms.crop=42",
    "training.steps=2", "training.batch=2", "training.workers=0", "training.validate_every=0", "training.ema=0.5", "model.probe=B3+EB2",
]  # fmt: skip


def probe_recipe(folder: Path, *overrides: str) -> Recipe:
    path = folder / "source.safetensors"
    options = {"backbone": "resnet10t", "width": 8, "output_stride": 16, "num_classes": SHAPES.num_classes}
    save_model(path, create_model("seenet", **options), SHAPES)  # type: ignore[arg-type]
    return load_recipe("shapes", [*PROBE_SETTINGS, f"model.weights={path}", *overrides])


def test_a_frozen_probe_moves_alone(tmp_path: Path) -> None:
    trainer = trainer_of(probe_recipe(tmp_path, "training.freeze_below=true"), tmp_path)
    before = weights_of(trainer.model)
    features = trainer.model.train().forward_features(torch.randn(2, 3, 42, 42))
    assert features["logits"].requires_grad and not any(features[key].requires_grad for key in ("B1", "B2", "B3", "P2"))
    trainer.model.load_state_dict(before)
    trainer.fit()
    moved = {key for key, value in trainer.model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {key for key in before if key.startswith("head.")}
    kept = load_model(tmp_path / "model.safetensors").model.state_dict()
    assert all(torch.equal(kept[key], before[key]) for key in before if not key.startswith("head."))
    assert not any(module.training for part in trainer.model.below() for module in part.modules())


def test_a_joint_probe_moves_all(tmp_path: Path) -> None:
    trainer = trainer_of(probe_recipe(tmp_path), tmp_path)
    before = weights_of(trainer.model)
    trainer.fit()
    assert not [key for key, value in trainer.model.state_dict().items() if torch.equal(value, before[key])]


def test_a_probe_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    settings = probe_recipe(tmp_path, "training.freeze_below=true")
    train(settings, tmp_path / "run", device="cpu")
    assert train(settings, tmp_path / "run", resume=True, device="cpu").steps == 2


def test_freezing_below_belongs_to_probes() -> None:
    with pytest.raises(UsageError, match=r"training\.freeze_below belongs to model\.probe"):
        load_recipe("shapes", ["training.freeze_below=true"])
