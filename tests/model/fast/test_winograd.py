"""Winograd's tiles against the library's convolution in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seenet.model.fast import winograd
from seenet.model.fast.winograd import convolve, transform_kernels, waste, weight_gradient

CHANNELS, SIDES = st.integers(1, 4), st.integers(1, 26)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 2), CHANNELS, CHANNELS, SIDES, SIDES, st.integers(1, 5))
def test_equal_to_the_convolution(
    batch: int, into: int, out: int, height: int, width: int, rate: int
) -> None:
    """In float64, where rounding does not matter."""
    x = torch.randn(batch, height, width, into, dtype=torch.float64)
    weight = torch.randn(out, into, 3, 3, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(x.permute(0, 3, 1, 2), weight, padding=rate, dilation=rate)
    expected = expected.permute(0, 2, 3, 1)
    found = convolve(x, transform_kernels(weight.detach()), rate)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(found)
    (gradient,) = torch.autograd.grad(expected, weight, grad)
    torch.testing.assert_close(weight_gradient(x, grad, rate), gradient, rtol=1e-10, atol=1e-10)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, grad = (torch.randn(2, 37, 21, channels, dtype=torch.float64) for channels in (3, 5))
    kernels = transform_kernels(torch.randn(5, 3, 3, 3, dtype=torch.float64))
    whole = convolve(x, kernels, 2), weight_gradient(x, grad, 2)
    monkeypatch.setattr(winograd, "CHUNK_BYTES", 1)
    parts = convolve(x, kernels, 2), weight_gradient(x, grad, 2)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


def test_waste_counts_points_beyond_the_image() -> None:
    found = [waste(8, 16, 2), waste(9, 16, 2), waste(45, 60, 12)]
    assert found == [1, 16 / 9, 48 * 96 / (45 * 60)]
