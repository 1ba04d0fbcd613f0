"""Files that the commands read and write."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.cli.commands import run


def test_import_writes_beside_the_file_by_default(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source, beside = tmp_path / "net.pth", tmp_path / "net.safetensors"
    torch.save({"state_dict": {"module.conv.weight": torch.ones(2, 3)}}, source)
    assert run(capsys, "import", source)[:2] == (0, f"1 tensors: {beside}\n")
    assert list(load_file(beside)) == ["conv.weight"]
    other = tmp_path / "other" / "name.safetensors"
    assert run(capsys, "import", source, other)[0] == 0
    assert other.read_bytes() == beside.read_bytes()


def test_a_resized_mask_has_an_error_for_its_ids_and_its_size(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in "abcdef":
        image = rng.integers(0, 256, (24, 32, 3), np.uint8)
        mask = rng.integers(0, 2, (24, 32, 1), np.uint8) * np.uint8([0, 200, 0])
        Image.fromarray(image).save(tmp_path / f"images/{name}.png")
        size = (20, 20) if name == "b" else (32, 24)
        resized = Image.fromarray(mask).resize(size, Image.Resampling.BILINEAR)
        resized.save(tmp_path / f"masks/{name}.png")
    (tmp_path / "seenet.yaml").write_text(
        "decode: rgb\nclasses: {ground: [0, 0, 0], tree: [0, 200, 0]}\n"
    )
    check = ["data", "check", "folder-lite0", f"data.root={tmp_path}", "--json"]
    code, out, _ = run(capsys, *check)
    assert code == 6
    ids, size = sorted(json.loads(out)["errors"], key=lambda error: error["kind"])
    assert (ids["kind"], size["kind"]) == ("ids", "size")
    assert "nearest neighbour" in ids["fix"] and ids["pixels"] > 100
