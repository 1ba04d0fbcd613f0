"""Shifted products against the library's convolution in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seenet.model.fast import use_fast
from seenet.model.fast.depthwise import ShiftedDepthwiseConv2d


def conv(channels: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False)


def both(plain: nn.Conv2d, x: torch.Tensor) -> list[list[torch.Tensor]]:
    """Output, gradient of the input and of the weights, plain in float64 and fast in float32."""
    fast = nn.Sequential(plain)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    found = []
    for dtype in (torch.float64, torch.float32):
        plain.to(dtype)
        if dtype == torch.float32:
            use_fast(fast)
            assert type(plain) is ShiftedDepthwiseConv2d
        x = x.detach().to(dtype).requires_grad_()
        out = plain(x)
        gradients = torch.autograd.grad(out, [x, plain.weight], grad.to(dtype))
        found.append([out.detach(), *gradients])
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 30), st.integers(1, 30), st.integers(2, 28), st.booleans())
def test_equals_the_plain_form(batch: int, channels: int, height: int, width: int, dilation: int, channels_last: bool) -> None:
    x = torch.randn(batch, channels, height, width)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    for exact, found in zip(*both(conv(channels, dilation), x), strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))


def test_only_what_needs_a_gradient_gets_one() -> None:
    module = conv(4, 7)
    use_fast(nn.Sequential(module))
    module.weight.requires_grad_(False)
    x = torch.randn(2, 4, 9, 9, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert module.weight.grad is None


def test_under_bf16_it_computes_in_float32() -> None:
    module = conv(8, 9)
    x = torch.randn(2, 8, 20, 20).to(torch.bfloat16)
    exact = module.double()(x.double())
    use_fast(nn.Sequential(module.float()))
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x)
    assert found.dtype == torch.bfloat16
    # One rounding: half of the last of eight bits.
    assert ((found.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-6).all()


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False, stride=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False, padding_mode="reflect"),
    ],
)
def test_others_are_left(other: nn.Conv2d) -> None:
    assert not ShiftedDepthwiseConv2d.fits(other)
