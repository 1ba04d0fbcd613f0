"""What is replaced while a network is traced has the same values, and is put back; files of half the size."""

import itertools
from pathlib import Path

import pytest
import torch
from timm.layers import padding
from torch.nn import functional

from seenet.core.errors import CheckError, DataError
from seenet.data.shapes import SHAPES
from seenet.export.torch import _portable, export_half
from seenet.model import create_model
from seenet.model.files import load_model, save_model


def test_padding_as_timm_has_it() -> None:
    original = padding.get_same_padding
    with _portable():
        assert padding.get_same_padding is not original
        for size, kernel, stride, dilation in itertools.product(range(1, 70), (1, 2, 3, 5, 7), (1, 2, 3, 4), (1, 2, 5)):
            assert padding.get_same_padding(size, kernel, stride, dilation) == original(size, kernel, stride, dilation)
    assert padding.get_same_padding is original


def test_means_of_pairs_and_of_what_stands_alone() -> None:
    original = functional.avg_pool2d
    with _portable():
        for height, width in itertools.product((1, 2, 3, 6, 9), repeat=2):
            x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(height * 10 + width))
            expected = original(x, 2, ceil_mode=True, count_include_pad=False)
            for found in (
                functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False),
                torch.nn.AvgPool2d((2, 2), 2, ceil_mode=True, count_include_pad=False)(x),
            ):
                assert torch.allclose(found, expected, rtol=1e-14)
        x = torch.randn(1, 1, 7, 6)
        # Whatever is not this very pooling stays as it is.
        for rest in ({"ceil_mode": True}, {"count_include_pad": False}, {"stride": 1}, {"padding": 1}, {"divisor_override": 3}):
            assert torch.equal(functional.avg_pool2d(x, 2, **rest), original(x, 2, **rest))
    assert functional.avg_pool2d is original


def test_means_over_parts() -> None:
    original = functional.adaptive_avg_pool2d
    with _portable():
        for height, width in ((1, 1), (1, 5), (4, 3), (7, 6), (12, 13)):
            x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(height * 20 + width))
            for size in (1, 2, 3, 6, (2, 3), (None, 2)):
                assert torch.allclose(torch.nn.AdaptiveAvgPool2d(size)(x), original(x, size), rtol=1e-12, atol=1e-15)  # type: ignore[arg-type]
    assert functional.adaptive_avg_pool2d is original


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
