"""The model file: what is written is read back, and damage is one error."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from seenet.core.errors import DataError
from seenet.core.picture_reader import PLAIN, PictureReader
from seenet.data.camvid import CAMVID11
from seenet.model.files import card_of, from_card, load_model, read_options, save_model
from tests.model.networks import images, small, spread_norms


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("seenet", {"auxiliary": True}),
        ("seenet", {"probe": "B3+EB2"}),
        ("torchvision-deeplabv3", {}),
        ("smp-fpn", {}),
    ],
)
def test_round_trip(tmp_path: Path, variant: str, options: dict[str, Any]) -> None:
    model = spread_norms(small(variant, output_stride=16, **options))
    path = tmp_path / "model.safetensors"
    save_model(path, model, CAMVID11, notes={"step": 3})
    saved = load_model(path)
    assert torch.equal(saved.model(images(40, 40)), model(images(40, 40)))
    assert (saved.labels, saved.notes) == (CAMVID11, {"step": 3})
    assert read_options(path) == saved.model.options == model.options
    assert saved.model.normalization == model.normalization
    assert load_model(tmp_path).sha256 == saved.sha256


def stored_format(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        return int(json.loads(file.metadata()["seenet"])["format"])


def test_the_reader_of_pictures_is_kept(tmp_path: Path) -> None:
    model, path = small(), tmp_path / "model.safetensors"
    save_model(path, model, CAMVID11)
    assert (PictureReader.of_model(path), stored_format(path)) == (PLAIN, 1)
    model.reader = PictureReader((4, 2, 1), ((0, 4095), (1, 2.5), (-1, 1)))
    save_model(path, model, CAMVID11)
    assert load_model(path).model.reader == PictureReader.of_model(path) == model.reader
    # Versions that would read other bands, or other values, refuse the file.
    assert stored_format(path) == 2
    assert from_card(card_of(model)).reader == model.reader


def test_half_keeps_vectors_exact(tmp_path: Path) -> None:
    model = small()
    for norm in model.backbone.norms():
        norm.running_var.fill_(1e-9)
    save_model(tmp_path / "half.safetensors", model, CAMVID11, half=True)
    state = load_model(tmp_path / "half.safetensors").model.state_dict()
    for key, value in model.state_dict().items():
        expected = value.half().float() if value.dim() > 1 else value
        assert torch.equal(state[key], expected), key


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"format": 99}, "newer seenet"),
        ({"options": {"variant": "unheard"}}, "damaged or foreign"),
        ({"options": {"variant": "smp-fpn"}}, "damaged or foreign"),
        ({"options": []}, "damaged or foreign"),
        (None, "damaged or foreign"),
    ],
)
def test_damaged_files(tmp_path: Path, damage: dict[str, Any] | None, message: str) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, small(), CAMVID11)
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["seenet"])
    text = json.dumps(card)[:-5] if damage is None else json.dumps(card | damage)
    save_file({"x": torch.zeros(1)}, path, metadata={"seenet": text})
    with pytest.raises(DataError, match=message):
        load_model(path)
