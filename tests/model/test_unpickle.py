"""Pickled weights: tensors are rewritten, anything else is refused and never run."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seenet.core.errors import DataError
from seenet.model.files import import_pickle


def test_state_dict_with_ddp_names(tmp_path: Path) -> None:
    state = {"module.conv.weight": torch.randn(2, 3), "module.conv.bias": torch.randn(2)}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    assert import_pickle(tmp_path / "a.pth", tmp_path / "a.safetensors") == 2
    assert torch.equal(load_file(tmp_path / "a.safetensors")["conv.weight"], state["module.conv.weight"])


def test_code_is_never_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"w": Hostile()}))
    with pytest.raises(DataError, match=r"bad\.pth"):
        import_pickle(tmp_path / "bad.pth", tmp_path / "bad.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pth"]


def test_what_unpacks_to_more_than_the_file_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(1).expand(100_000_000)}}, tmp_path / "wide.pth")
    with pytest.raises(DataError, match=r"wide\.pth: tensors of 400000000 bytes in a file of \d{4};"):
        import_pickle(tmp_path / "wide.pth", tmp_path / "wide.safetensors")
    torch.save({"w": torch.zeros(1000)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    with pytest.raises(DataError, match=r"packed\.pth: a compressed archive"):
        import_pickle(tmp_path / "packed.pth", tmp_path / "packed.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packed.pth", "plain.pth", "wide.pth"]


def test_never_overwrites(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "a.pth")
    (tmp_path / "a.safetensors").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        import_pickle(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_text() == "mine"
