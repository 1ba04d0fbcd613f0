"""Checkpoints: which are accepted, which are removed, and what a full disk does to them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from seenet.core.errors import DataError
from seenet.training import checkpoint
from tests.faults.fault import tree

CONTENT = checkpoint.Checkpoint({"model": {"weight": torch.arange(4.0)}}, {"step": 1})


def test_a_manifest_is_compared_byte_by_byte(tmp_path: Path) -> None:
    """Blanks too: JSON would take a tab for a space."""
    manifest = checkpoint.save(tmp_path, 1, CONTENT, keep=1) / checkpoint.MANIFEST
    whole = manifest.read_bytes()
    for place, byte in enumerate(whole):
        for changed in {9, 10, 13, 32, byte ^ 1} - {byte}:
            manifest.write_bytes(whole[:place] + bytes([changed]) + whole[place + 1 :])
            with pytest.raises(DataError, match=r"manifest"):
                checkpoint.load(manifest.parent)
    manifest.write_bytes(whole)
    found = checkpoint.load(manifest.parent).tensors
    assert torch.equal(found["model"]["weight"], CONTENT.tensors["model"]["weight"])


def test_a_damaged_newer_checkpoint_does_not_displace_an_intact_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run resumed from step 4, since 6 is damaged, and stopped at 5, continues from 5."""
    checkpoint.save(tmp_path, 4, CONTENT, keep=1)
    damaged = checkpoint.save(tmp_path, 6, CONTENT, keep=2)
    (damaged / "model.safetensors").write_bytes(b"")
    checkpoint.save(tmp_path, 5, checkpoint.Checkpoint(CONTENT.tensors, {"step": 5}), keep=1)
    assert checkpoint.newest(tmp_path).state == {"step": 5}  # type: ignore[union-attr]
    assert f"{damaged}: damaged, model.safetensors differs" in caplog.text


@pytest.mark.parametrize(
    ("kind", "options"), [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {})]
)
def test_optimizer_state_is_restored_in_its_own_layout(
    tmp_path: Path, kind: Any, options: dict[str, Any]
) -> None:
    """Saved tensors are contiguous; an update with other strides may round differently."""
    torch.manual_seed(0)
    strided = torch.randn(8, 5, 3, 3).contiguous(memory_format=torch.channels_last)
    weight = torch.nn.Parameter(strided)
    optimizer, other = (kind([weight], lr=0.1, **options) for _ in range(2))
    weight.square().sum().backward()
    optimizer.step()
    packed = checkpoint.pack_optimizer(optimizer)
    content = checkpoint.Checkpoint({"optimizer": packed}, {})
    saved = checkpoint.load(checkpoint.save(tmp_path, 1, content, keep=1))
    checkpoint.unpack_optimizer(other, saved.tensors["optimizer"])
    restored = checkpoint.pack_optimizer(other)
    assert restored.keys() == packed.keys()
    for key, value in packed.items():
        assert torch.equal(restored[key], value) and restored[key].stride() == value.stride()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")]
)
def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    checkpoint.save(tmp_path, 1, CONTENT, keep=1)
    before = tree(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    message = f"^{tmp_path}: cannot be written .*No space left on device[^\n]*$"
    with pytest.raises(DataError, match=message):
        checkpoint.save(tmp_path, 2, CONTENT, keep=1)
    assert tree(tmp_path) == before
