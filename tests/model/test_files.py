"""The model file: what is written is read back, and what is wrong with one is said."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from seenet.core.errors import DataError
from seenet.data.camvid import CAMVID11
from seenet.data.voc import VOC21
from seenet.model import create_model
from seenet.model.files import load_model, read_options, save_model

SMALL = {"backbone": "resnet10t", "num_classes": 11, "width": 8, "p_out": 16}


def test_model_file_round_trip(tmp_path: Path) -> None:
    model = create_model("seenet", **SMALL, output_stride=16, auxiliary=True).eval()
    save_model(tmp_path / "model.safetensors", model, CAMVID11, notes={"step": 3})
    saved = load_model(tmp_path / "model.safetensors")
    images = torch.randn(1, 3, 40, 40)
    assert torch.equal(saved.model(images), model(images))
    assert (saved.labels, saved.notes, saved.model.options) == (CAMVID11, {"step": 3}, model.options)
    assert load_model(tmp_path).sha256 == saved.sha256
    assert read_options(tmp_path / "model.safetensors") == model.options
    assert saved.model.normalization == model.normalization


def test_half_keeps_vectors_exact(tmp_path: Path) -> None:
    model = create_model(**SMALL).eval()
    for norm in model.backbone.norms():
        norm.running_var.fill_(1e-9)  # type: ignore[operator,union-attr]
    save_model(tmp_path / "half.safetensors", model, CAMVID11, half=True)
    state = load_model(tmp_path / "half.safetensors").model.state_dict()
    for key, value in model.state_dict().items():
        expected = value.half().float() if value.dim() > 1 else value
        assert torch.equal(state[key], expected), key


@pytest.mark.parametrize("damage", ["format", "options", "json"])
def test_damaged_model_files(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, create_model(**SMALL), VOC21)
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        card = json.loads(file.metadata()["seenet"])
    if damage == "format":
        card["format"] = 99
    if damage == "options":
        card["options"]["variant"] = "unheard"
    text = json.dumps(card)[: -5 if damage == "json" else None]
    save_file(tensors, path, metadata={"seenet": text})
    with pytest.raises(DataError, match="newer seenet" if damage == "format" else "damaged or foreign"):
        load_model(path)


def test_unknown_model_name() -> None:
    with pytest.raises(DataError, match="no such run, model file or bundled model"):
        load_model("camvid-lite9")
