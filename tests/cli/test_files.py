"""What commands do with the files that they are given and those they write."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_main import run


def test_import_writes_beside_the_file_unless_told_where(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    state = {
        "module.conv.weight": torch.arange(6.0).reshape(2, 3),
        "module.conv.bias": torch.zeros(2),
    }
    torch.save({"state_dict": state}, tmp_path / "net.pth")
    code, out, err = run(capsys, "import", str(tmp_path / "net.pth"))
    assert code == 0, err
    assert out == f"2 tensors: {tmp_path / 'net.safetensors'}\n"
    written = load_file(tmp_path / "net.safetensors")
    assert sorted(written) == ["conv.bias", "conv.weight"]
    assert torch.equal(written["conv.weight"], state["module.conv.weight"])
    code, _, err = run(capsys, "import", str(tmp_path / "net.pth"))
    assert (code, "exists already" in err) == (4, True)
    code, _, err = run(
        capsys, "import", str(tmp_path / "net.pth"), str(tmp_path / "other" / "name.safetensors")
    )
    assert code == 0, err
    assert (tmp_path / "other" / "name.safetensors").read_bytes() == (
        tmp_path / "net.safetensors"
    ).read_bytes()


def test_show_replaces_no_page_unasked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("mine")
    show = [
        "data",
        "show",
        "shapes",
        "data.size=48",
        "data.count=20",
        "transforms.crop=48",
        "--out",
        str(tmp_path),
    ]
    code, _, err = run(capsys, *show)
    assert (code, err) == (4, f"seenet: {page}: exists already; use --overwrite or another --out\n")
    assert page.read_text() == "mine"
    code, out, err = run(capsys, *show, "--overwrite")
    assert (code, out) == (0, f"open {page}\n"), err
    assert "shapes/train" in page.read_text()


@pytest.mark.parametrize("name", ["seenet.yaml", "val.txt"])
def test_text_in_another_encoding_is_bad_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "seenet.yaml").write_text("decode: index\nclasses: [road]\nval: val.txt\n")
    (tmp_path / name).write_bytes("Straße\n".encode("latin-1"))
    code, _, err = run(capsys, "data", "stats", "folder-lite0", f"data.root={tmp_path}")
    assert code == 4
    assert (
        err
        == f"seenet: {tmp_path / name}: not UTF-8 text (byte 0xdf at 4), expected UTF-8; save it again in that encoding\n"
    )


def test_a_resized_mask_is_told_by_all_that_is_wrong_with_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for name in "abcdef":
        for folder, pixels in (
            ("images", rng.integers(0, 256, (24, 32, 3))),
            ("masks", rng.integers(0, 2, (24, 32, 1)) * [0, 200, 0]),
        ):
            (tmp_path / "mine" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(
                tmp_path / "mine" / folder / f"{name}.png"
            )
    (tmp_path / "mine/seenet.yaml").write_text(
        "decode: rgb\nclasses: {ground: [0, 0, 0], tree: [0, 200, 0]}\n"
    )
    mask = tmp_path / "mine/masks/b.png"
    Image.open(mask).resize((20, 20), Image.Resampling.BILINEAR).save(mask)
    check = [
        "data",
        "check",
        "folder-lite0",
        f"data.root={tmp_path / 'mine'}",
        "--out",
        str(tmp_path / "page"),
    ]
    code, _, err = run(capsys, *check)
    assert (code, "2 errors" in err) == (6, True)
    errors = json.loads((tmp_path / "page/check.json").read_text())["errors"]
    assert {error["kind"] for error in errors} == {"ids", "size"}
    told = next(error for error in errors if error["kind"] == "ids")
    assert re.search(
        r"colour \[0, \d+, 0\] \(\d+ pixels\) belongs to no class, nor do \d+ others \(\d+ in all\)",
        told["message"],
    )
    assert "nearest neighbour" in told["fix"] and told["pixels"] > 100
