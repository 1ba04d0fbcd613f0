"""Which checkpoints are believed, which are removed, and what a full disk does to them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from seenet.core.errors import DataError
from seenet.training import checkpoint
from seenet.training.trainer import train
from tests.training.test_trainer import TINY, losses, recipe

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


def test_damaged_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = recipe("training.steps=3", "training.validate_every=0")
    train(settings, tmp_path / "run", device="cpu")
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1] / "model.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    train(settings, tmp_path / "run", resume=True, device="cpu")
    assert "damaged" in caplog.text
    assert len(losses(tmp_path / "run")) == 3


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_optimizer_state_comes_back_in_its_own_layout(tmp_path: Path, kind: Any) -> None:
    """Saved tensors are contiguous; an update over mixed strides takes another loop, which need not round the same."""

    def made() -> Any:
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(8, 5, 3, 3).contiguous(memory_format=torch.channels_last))
        return kind([weight], lr=0.1, **({"momentum": 0.9} if kind is torch.optim.SGD else {})), weight

    optimizer, weight = made()
    weight.square().sum().backward()
    optimizer.step()
    packed = checkpoint.pack_optimizer(optimizer)
    saved = checkpoint.load(checkpoint.save(tmp_path, 1, checkpoint.Checkpoint({"optimizer": packed}, {}), keep=1)).tensors["optimizer"]
    other, _ = made()
    checkpoint.unpack_optimizer(other, saved)
    back = checkpoint.pack_optimizer(other)
    assert back.keys() == packed.keys()
    assert all(torch.equal(back[key], packed[key]) and back[key].stride() == packed[key].stride() for key in packed)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device (os error 28)")])
def test_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    content = checkpoint.Checkpoint({"model": {"weight": torch.arange(4.0)}}, {"step": 1})
    good = checkpoint.save(tmp_path, 1, content, keep=1)
    before = {path.name: path.read_bytes() for path in good.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(DataError, match=f"^{tmp_path}: cannot be written .*No space left on device") as caught:
        checkpoint.save(tmp_path, 2, content, keep=1)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [good]
    assert {path.name: path.read_bytes() for path in good.iterdir()} == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs that two checkpoints of a tiny run fit in (80 MB each), and a third does not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "none", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_training_on_a_full_disk_says_so_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    run = small_disk / "run"
    settings = [*TINY, "training.validate_every=0", "training.steps=4", "training.keep=2"]
    command = [sys.executable, "-m", "seenet", "train", "shapes", *settings, "--out", str(run), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 4
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("seenet: ")]
    assert re.match(rf"seenet: {run}\S*: cannot be written \(.*No space left on device.*make room", line)
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000001", "step-00000002"]
    for folder in (run / "checkpoints").iterdir():
        checkpoint.verify(folder)
    subprocess.run(["mount", "-o", "remount,size=500m", str(small_disk)], check=True)
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0
    assert "resumed after step 2" in done.stderr
    assert len(losses(run)) == 4
