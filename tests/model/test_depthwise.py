"""Gradients of depthwise convolutions in 16 bits, which some CPUs compute wrongly or never."""

import pytest
import torch
from torch import nn

from seenet.model.depthwise import DepthwiseConv2d, use_exact_depthwise
from tests.model.networks import small


def convolution(
    kernel: tuple[int, int], rate: int, kind: type[nn.Conv2d] = DepthwiseConv2d
) -> nn.Conv2d:
    torch.manual_seed(0)
    padding = (rate * (kernel[0] // 2), rate * (kernel[1] // 2))
    return kind(16, 16, kernel, padding=padding, dilation=rate, groups=16)


def gradients(module: nn.Module, x: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    (module(x).double() * signs).mean().backward()
    assert x.grad is not None
    return torch.cat([tensor.grad.double().flatten() for tensor in (x, *module.parameters())])


@pytest.mark.parametrize(
    ("kernel", "rate"), [((3, 3), 2), ((3, 3), 13), ((5, 5), 2), ((1, 25), 1), ((19, 1), 1)]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_under_autocast(
    kernel: tuple[int, int], rate: int, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    conv = convolution(kernel, rate).to(memory_format=memory_format)
    x = torch.randn(2, 16, 32, 32).contiguous(memory_format=memory_format)
    signs = torch.randn(2, 16, 32, 32).sign()
    expected = gradients(convolution(kernel, rate, nn.Conv2d).double(), x.double(), signs)
    with torch.autocast("cpu", dtype):
        assert conv(x).dtype == dtype
        found = gradients(conv, x, signs)
    assert nn.functional.cosine_similarity(found, expected, dim=0) > 0.999


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_otherwise_it_is_the_plain_convolution(dtype: torch.dtype) -> None:
    conv = convolution((3, 3), 4).to(dtype)
    plain = convolution((3, 3), 4, nn.Conv2d).to(dtype)
    x = torch.randn(2, 16, 20, 20, dtype=dtype)
    assert torch.equal(conv(x), plain(x))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv(x), plain(x))


def test_every_depthwise_convolution_of_a_network() -> None:
    model = small(backbone="test_efficientnet", local_conv="depthwise", output_stride=16)
    depthwise = [part for part in model.modules() if getattr(part, "groups", 1) > 1]
    assert {type(part) for part in depthwise} == {DepthwiseConv2d}
    assert {(1, 13), (3, 3)} <= {part.kernel_size for part in depthwise}
    other = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(1, 1, 3)
    )
    use_exact_depthwise(other)
    assert [type(part) for part in other] == [DepthwiseConv2d, nn.Conv2d, nn.Conv2d]
