"""`seenet predict` on files that need care: exit codes and outputs."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.model.files import save_model
from tests.cli.commands import run
from tests.core.tiffs import SRATIONAL, Page, long, short, tiff_of

PREDICT = ["--device", "cpu", "--runtime", "eager", "--precision", "fp32", "--out", "out"]
COLOURS = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with a model."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    small = {"backbone": "resnet18", "width": 8, "p_out": 16, "output_stride": 32}
    save_model(tmp_path / "net.safetensors", create_model(num_classes=6, **small), SHAPES)
    return tmp_path


def test_a_file_without_a_known_value_range_fails_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(COLOURS).save("good.png")
    Image.fromarray(COLOURS[..., 0].astype(np.float32)).save("float.tif")
    code, _, err = run(capsys, "predict", "net.safetensors", "good.png", "float.tif", *PREDICT)
    assert code == 3 and "float.tif" in err
    assert [path.name for path in (folder / "out/masks").iterdir()] == ["good.png"]
    assert run(capsys, "predict", "net.safetensors", "float.tif", *PREDICT)[0] == 4


def test_damaged_tags_and_smaller_copies_are_ignored(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = {274: short(6), 282: (SRATIONAL, 1, struct.pack("<ll", -1, 0)), 34665: long(2**31)}
    smaller = Page(COLOURS[::2, ::2].copy(), {254: long(1)})
    Path("turned.tif").write_bytes(tiff_of(Page(COLOURS, tags), smaller))
    assert run(capsys, "predict", "net.safetensors", "turned.tif", *PREDICT)[0] == 0
    with Image.open("out/masks/turned.png") as mask:
        assert mask.size == (32, 40)
