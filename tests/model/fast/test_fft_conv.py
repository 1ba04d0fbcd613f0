"""Lines through the Fourier transform against the library's convolution in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seenet.model.fast import fft_conv
from seenet.model.fast.fft_conv import convolve, weight_gradient


def check(lines: int, side: int, into: int, out: int, size: int) -> None:
    x = torch.randn(lines, into, side, dtype=torch.float64)
    weight = torch.randn(out, into, size, dtype=torch.float64, requires_grad=True)
    expected = F.conv1d(x, weight, padding=size // 2)
    taps = weight.detach().permute(2, 1, 0)
    found = convolve(x.transpose(1, 2), taps)
    torch.testing.assert_close(found.transpose(1, 2), expected.detach(), rtol=1e-9, atol=1e-9)
    grad = torch.randn_like(expected)
    (exact,) = torch.autograd.grad(expected, weight, grad)
    gradient = weight_gradient(x.transpose(1, 2), grad.transpose(1, 2), size)
    torch.testing.assert_close(gradient.permute(2, 1, 0), exact, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(1, 200), st.integers(1, 4), st.integers(1, 4), st.integers(0, 14))
def test_equals_the_convolution(lines: int, side: int, into: int, out: int, half: int) -> None:
    check(lines, side, into, out, 2 * half + 1)


@pytest.mark.parametrize("side", [63, 64, 65, 128, 129])
def test_pieces_meet_without_a_seam(side: int) -> None:
    check(2, side, 3, 2, 25)


def test_rounding_is_small() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(8, 90, 128, generator=generator), torch.randn(25, 128, 128, generator=generator)
    exact = convolve(x.double(), weight.double())
    assert (convolve(x, weight) - exact).abs().max() < 1e-5 * exact.abs().max()
    assert fft_conv.LONGEST < 90
