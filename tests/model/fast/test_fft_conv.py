"""Lines through the Fourier transform against the library's convolution in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seenet.model.fast.fft_conv import convolve, weight_gradient


def check(lines: int, side: int, in_channels: int, out_channels: int, size: int) -> None:
    x = torch.randn(lines, side, in_channels, dtype=torch.float64)
    weight = torch.randn(size, in_channels, out_channels, dtype=torch.float64, requires_grad=True)
    taps = weight.permute(2, 1, 0).contiguous()
    expected = F.conv1d(x.transpose(1, 2), taps, padding=size // 2).transpose(1, 2)
    found = convolve(x, weight.detach())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, weight, grad)
    torch.testing.assert_close(weight_gradient(x, grad, size), gradient, rtol=1e-9, atol=1e-9)


CHANNELS = st.integers(1, 4)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(1, 200), CHANNELS, CHANNELS, st.integers(0, 14))
def test_equal_to_the_convolution(lines: int, side: int, into: int, out: int, half: int) -> None:
    check(lines, side, into, out, 2 * half + 1)


@pytest.mark.parametrize("side", [63, 64, 65, 128, 129])
def test_pieces_meet_without_a_seam(side: int) -> None:
    check(2, side, 3, 2, 25)
