"""`seenet predict` on pictures that are read otherwise than others: its exit code, and what is written."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seenet.cli import main
from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.model.files import save_model
from tests.core.tiffs import SRATIONAL, Page, long, short, tiff_of

COLOURS = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    save_model(path, create_model(backbone="resnet18", num_classes=6, width=8, p_out=16, output_stride=32), SHAPES)
    return str(path)


def predict(model: str, *inputs: Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["predict", model, *map(str, inputs), "--device", "cpu", "--runtime", "eager", "--precision", "fp32", "--out", "out"])
    return int(ended.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(COLOURS).save(tmp_path / "good.png")
    Image.fromarray(COLOURS[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    turned = {274: short(6), 282: (SRATIONAL, 1, struct.pack("<ll", -1, 0)), 34665: long(2**31)}
    (tmp_path / "turned.tif").write_bytes(tiff_of(Page(COLOURS, turned), Page(COLOURS[::2, ::2].copy(), {254: long(1)})))
    return tmp_path


def test_values_without_a_scale_fail_alone(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(model, folder / "good.png", folder / "float.tif") == 3
    assert "float.tif: float32 values from" in capsys.readouterr().err
    assert [path.name for path in (folder / "out/masks").iterdir()] == ["good.png"]
    assert predict(model, folder / "float.tif") == 4


def test_damaged_tags_and_smaller_copies_are_no_fault(model: str, folder: Path) -> None:
    assert predict(model, folder / "turned.tif") == 0
    with Image.open(folder / "out/masks/turned.png") as mask:
        assert mask.size == (32, 40)
