"""A frozen probe leaves what it stands on bit for bit, and pays for no gradient there; a joint one trains all of it."""

from pathlib import Path

import pytest
import torch

from seenet.core.errors import UsageError
from seenet.core.recipe_files import load_recipe
from seenet.core.settings import Recipe
from seenet.data.shapes import SHAPES
from seenet.distributed import Ranks
from seenet.model import create_model
from seenet.model.files import load_model, save_model
from seenet.training.trainer import Trainer, train

TINY = [
    "model.backbone=resnet10t", "model.width=8", "data.size=42", "data.count=4", "data.val=null", "transforms.crop=42",
    "training.steps=2", "training.batch=2", "training.workers=0", "training.validate_every=0", "training.ema=0.5", "model.probe=B3+EB2",
]  # fmt: skip


def recipe(folder: Path, *overrides: str) -> Recipe:
    path = folder / "source.safetensors"
    options = {"backbone": "resnet10t", "width": 8, "output_stride": 16, "num_classes": SHAPES.num_classes}
    save_model(path, create_model("seenet", **options), SHAPES)  # type: ignore[arg-type]
    return load_recipe("shapes", [*TINY, f"model.weights={path}", *overrides])


def test_frozen_below(tmp_path: Path) -> None:
    trainer = Trainer(recipe(tmp_path, "training.freeze_below=true"), tmp_path, torch.device("cpu"), Ranks())
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    features = trainer.model.train().forward_features(torch.randn(2, 3, 42, 42))
    assert features["logits"].requires_grad and not any(features[key].requires_grad for key in ("B1", "B2", "B3", "P2"))
    trainer.model.load_state_dict(before)
    trainer.fit()
    moved = {key for key, value in trainer.model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {key for key in before if key.startswith("head.")}
    kept = load_model(tmp_path / "model.safetensors").model.state_dict()
    assert all(torch.equal(kept[key], before[key]) for key in before if not key.startswith("head."))
    assert not any(module.training for part in trainer.model.below() for module in part.modules())


def test_joint(tmp_path: Path) -> None:
    trainer = Trainer(recipe(tmp_path), tmp_path, torch.device("cpu"), Ranks())
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.fit()
    assert not [key for key, value in trainer.model.state_dict().items() if torch.equal(value, before[key])]


def test_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    settings = recipe(tmp_path, "training.freeze_below=true")
    train(settings, tmp_path / "run", device="cpu")
    assert train(settings, tmp_path / "run", resume=True, device="cpu").steps == 2


def test_freezing_below_belongs_to_probes() -> None:
    with pytest.raises(UsageError, match=r"training\.freeze_below belongs to model\.probe"):
        load_recipe("shapes", ["training.freeze_below=true"])
