"""A peer and a network of the user's own go through the same trainer, files and evaluation as ours."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from seenet.core.recipe_files import load_recipe
from seenet.core.settings import Recipe
from seenet.distributed import Ranks
from seenet.evaluation.run import run_evaluation
from seenet.training.trainer import Trainer, train

TINY = [
    "model.backbone=resnet10t", "model.weights=null", "data.size=48", "data.count=20",
    "transforms.crop=48", "training.steps=2", "training.batch=2", "training.workers=0", "training.validate_every=0", "training.ema=null",
]  # fmt: skip


def recipe(*overrides: str) -> Recipe:
    return load_recipe("shapes", [*TINY, *overrides])


def build(num_classes: int) -> nn.Module:
    network = nn.Sequential()
    network.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    network.head = nn.Conv2d(8, num_classes, 1)
    return network


@pytest.mark.parametrize("settings", [["model.variant=smp-fpn", "loss.auxiliary=0.4"], [f"model.factory={__name__}:build"]])
def test_trained_and_scored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = recipe(*settings)
    train(chosen, tmp_path / "run", device="cpu")
    report = run_evaluation("run", device="cpu", factory=chosen.model.factory)
    assert report.result["confusion"] == json.loads(Path("run/val.json").read_text())["confusion"]
    # And goes on from its checkpoint, which here is its end.
    assert train(chosen, tmp_path / "run", resume=True, device="cpu").steps == 2


def test_a_peers_frozen_parts_do_not_move(tmp_path: Path) -> None:
    settings = recipe("model.variant=torchvision-deeplabv3", "training.freeze_stages=2", "training.freeze_norms=true")
    trainer = Trainer(settings, tmp_path, torch.device("cpu"), Ranks())
    before = {key: value.clone() for key, value in trainer.model.backbone.state_dict().items()}
    trainer.fit()
    moved = {key for key, value in trainer.model.backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert all(key.split(".")[1] in {"layer3", "layer4"} and "running" not in key for key in moved)


def test_recomputed_activations_change_nothing_for_a_peer(tmp_path: Path) -> None:
    losses = []
    for setting in ("false", "true"):
        train(recipe("model.variant=smp-upernet", f"training.activation_checkpointing={setting}"), tmp_path / setting, device="cpu")
        lines = [json.loads(line) for line in (tmp_path / setting / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
