"""Pickled weights: tensors are rewritten, anything else is refused and never run."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seenet.core.errors import DataError
from seenet.model.unpickle import import_pickle


def test_state_dict_with_ddp_names(tmp_path: Path) -> None:
    state = {"module.conv.weight": torch.randn(2, 3), "module.conv.bias": torch.randn(2)}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    assert import_pickle(tmp_path / "a.pth", tmp_path / "a.safetensors") == 2
    weight = load_file(tmp_path / "a.safetensors")["conv.weight"]
    assert torch.equal(weight, state["module.conv.weight"])


def test_code_is_never_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"w": Hostile()}))
    with pytest.raises(DataError, match=r"bad\.pth"):
        import_pickle(tmp_path / "bad.pth", tmp_path / "bad.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]


def test_what_unpacks_to_more_than_the_file_is_refused(tmp_path: Path) -> None:
    wide, packed, plain = (tmp_path / f"{name}.pth" for name in ("wide", "packed", "plain"))
    torch.save({"state_dict": {"w": torch.zeros(1).expand(100_000_000)}}, wide)
    torch.save({"w": torch.zeros(1000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as to:
        for entry in source.infolist():
            to.writestr(entry.filename, source.read(entry))
    for path, reason in ((wide, "tensors of 400000000 bytes"), (packed, "a compressed archive")):
        with pytest.raises(DataError, match=rf"{path.name}: {reason}"):
            import_pickle(path, path.with_suffix(".safetensors"))
    assert not list(tmp_path.glob("*.safetensors"))
