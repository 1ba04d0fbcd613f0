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
    weight, bias = torch.arange(6.0).reshape(2, 3), torch.zeros(2)
    state = {"module.conv.weight": weight, "module.conv.bias": bias}
    torch.save({"state_dict": state}, source)
    assert run(capsys, "import", source)[:2] == (0, f"2 tensors: {beside}\n")
    written = load_file(beside)
    assert sorted(written) == ["conv.bias", "conv.weight"]
    assert torch.equal(written["conv.weight"], weight)
    assert run(capsys, "import", source)[0] == 4
    other = tmp_path / "other" / "name.safetensors"
    assert run(capsys, "import", source, other)[0] == 0
    assert other.read_bytes() == beside.read_bytes()


def test_show_replaces_a_page_only_with_overwrite(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "index.html"
    page.write_text("mine")
    show = ["data", "show", "shapes", "data.size=48", "data.count=20", "transforms.crop=48"]
    code, _, err = run(capsys, *show, "--out", tmp_path)
    assert code == 4 and str(page) in err and "--overwrite" in err
    assert page.read_text() == "mine"
    code, out, err = run(capsys, *show, "--out", tmp_path, "--overwrite")
    assert (code, out) == (0, f"open {page}\n"), err
    assert "shapes/train" in page.read_text()


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
