"""Which checkpoints are believed, and which are removed."""

from pathlib import Path

import pytest
import torch

from seenet.core.errors import DataError
from seenet.training import checkpoint

CONTENT = checkpoint.Checkpoint({"model": {"weight": torch.arange(4.0)}}, {"step": 1})


def test_a_manifest_is_believed_byte_by_byte(tmp_path: Path) -> None:
    """Blanks too: JSON would take a tab for a space."""
    manifest = checkpoint.save(tmp_path, 1, CONTENT, keep=1) / checkpoint.MANIFEST
    whole = manifest.read_bytes()
    for place, byte in enumerate(whole):
        for changed in {9, 10, 13, 32, byte ^ 1} - {byte}:
            manifest.write_bytes(whole[:place] + bytes([changed]) + whole[place + 1 :])
            with pytest.raises(DataError, match=r"manifest"):
                checkpoint.load(manifest.parent)
    manifest.write_bytes(whole)
    assert torch.equal(checkpoint.load(manifest.parent).tensors["model"]["weight"], CONTENT.tensors["model"]["weight"])


def test_a_damaged_newer_one_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    """A run resumed from step 4, as 6 is damaged, and stopped at 5: 5 is what it goes on from."""
    checkpoint.save(tmp_path, 4, CONTENT, keep=1)
    damaged = checkpoint.save(tmp_path, 6, CONTENT, keep=2)
    (damaged / "model.safetensors").write_bytes(b"")
    checkpoint.save(tmp_path, 5, checkpoint.Checkpoint(CONTENT.tensors, {"step": 5}), keep=1)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.state == {"step": 5}
