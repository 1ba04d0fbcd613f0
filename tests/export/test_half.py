"""Files of half the size: the same answers, or no file."""

from pathlib import Path

import pytest
import torch

from seenet.core.errors import CheckError, DataError
from seenet.core.labels import SHAPES
from seenet.export.half import export_half
from seenet.model import create_model
from seenet.model.files import load_model, save_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    network = create_model(backbone="resnet10t", num_classes=6, p_out=16, width=8).eval()
    save_model(path, network, SHAPES, notes={"step": 3})
    return path


def test_half_the_size_and_the_same_answers(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "half.safetensors"
    assert export_half(model, out) <= 2**-10
    assert out.stat().st_size < 0.55 * model.stat().st_size
    whole, half = load_model(model), load_model(out)
    assert half.notes == {"step": 3, "fp16_of": whole.sha256}
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = whole.model(images), half.model(images)
    assert torch.allclose(one, other, atol=5e-3 * float(one.abs().max()))


@pytest.mark.parametrize("value", [1e6, float("nan")])
@pytest.mark.parametrize("place", [0, -1])
def test_nothing_is_written_that_is_not_the_model(model: Path, tmp_path: Path, value: float, place: int) -> None:
    saved = load_model(model)
    with torch.no_grad():
        kernels = [parameter for parameter in saved.model.parameters() if parameter.dim() == 4]
        kernels[place].flatten()[0] = value
    save_model(model, saved.model, saved.labels)
    with pytest.raises(CheckError, match="in fp16"):
        export_half(model, tmp_path / "half.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_nothing_is_overwritten(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "half.safetensors"
    out.write_text("mine")
    with pytest.raises(DataError, match="--overwrite"):
        export_half(model, out)
    assert out.read_text() == "mine"
    export_half(model, out, overwrite=True)
    with pytest.raises(DataError, match=r"expected \.safetensors"):
        export_half(model, tmp_path / "half.onnx")
