"""Winograd's tiles against the library's convolution in float64."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seenet.model.fast import winograd
from seenet.model.fast.winograd import convolve, transform_kernels, waste, weight_gradient

SIZES = settings(deadline=None, max_examples=40)


@SIZES
@given(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4), st.integers(1, 26), st.integers(1, 26), st.integers(1, 5))
def test_equals_the_convolution(batch: int, into: int, out: int, height: int, width: int, dilation: int) -> None:
    """In float64, where nothing is lost to rounding: the mathematics."""
    x = torch.randn(batch, into, height, width, dtype=torch.float64)
    weight = torch.randn(out, into, 3, 3, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(x, weight, padding=dilation, dilation=dilation)
    found = convolve(x.permute(0, 2, 3, 1), transform_kernels(weight.detach()), dilation).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(found)
    (expected_gradient,) = torch.autograd.grad(expected, weight, grad)
    gradient = weight_gradient(x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1), dilation)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-10)


def test_rounding_is_small() -> None:
    """256 channels in float32: within 1e-5 of the largest value."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 256, 24, 32, generator=generator), torch.randn(256, 256, 3, 3, generator=generator)
    expected = F.conv2d(x.double(), weight.double(), padding=2, dilation=2)
    found = convolve(x.permute(0, 2, 3, 1).contiguous(), transform_kernels(weight), 2).permute(0, 3, 1, 2)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_chunks_change_nothing() -> None:
    x, weight = torch.randn(2, 37, 21, 3, dtype=torch.float64), torch.randn(5, 3, 3, 3, dtype=torch.float64)
    grad = torch.randn(2, 37, 21, 5, dtype=torch.float64)
    whole = convolve(x, transform_kernels(weight), 2), weight_gradient(x, grad, 2)
    kept, winograd.CHUNK_BYTES = winograd.CHUNK_BYTES, 1
    try:
        parts = convolve(x, transform_kernels(weight), 2), weight_gradient(x, grad, 2)
    finally:
        winograd.CHUNK_BYTES = kept
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_waste_counts_points_beyond_the_picture() -> None:
    assert waste(8, 16, 2) == 1
    assert waste(9, 16, 2) == 16 / 9
    assert waste(45, 60, 12) == 48 * 96 / (45 * 60)
