"""Winograd's tiles, and the module that computes by them, against the library's convolution in float64."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from seenet.model.fast import use_fast, winograd
from seenet.model.fast.winograd import WideConv2d, convolve, transform_kernels, waste, weight_gradient

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


def pair(dilation: int = 1, bias: bool = False) -> tuple[nn.Conv2d, nn.Conv2d]:
    plain = nn.Conv2d(256, 256, 3, padding=dilation, dilation=dilation, bias=bias)
    fast = copy.deepcopy(plain)
    use_fast(nn.Sequential(fast))
    assert type(fast) is WideConv2d
    return plain.double(), fast


@pytest.mark.parametrize(("dilation", "bias"), [(1, False), (2, True)])
def test_outputs_and_gradients(dilation: int, bias: bool) -> None:
    plain, fast = pair(dilation, bias)
    x = torch.randn(2, 256, 15, 17)
    grad = torch.randn(2, 256, 15, 17)
    results = []
    for module, dtype in ((plain, torch.float64), (fast, torch.float32)):
        image = x.to(dtype).requires_grad_()
        out = module(image)
        results.append([out.detach(), *torch.autograd.grad(out, [image, *module.parameters()], grad.to(dtype))])
    for expected, found in zip(*results, strict=True):
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_picture_that_tiles_do_not_fit_takes_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "convolve", lambda *_: pytest.fail("tiles were used"))
    plain, fast = pair(12)
    x = torch.randn(1, 256, 13, 13)
    torch.testing.assert_close(fast(x).double(), plain(x.double()), rtol=1e-4, atol=1e-4)


def test_under_autocast_it_is_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "convolve", lambda *_: pytest.fail("tiles were used"))
    _, fast = pair()
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(torch.randn(1, 256, 8, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(64, 256, 3, padding=1),
        nn.Conv2d(256, 256, 3, padding=1, stride=2),
        nn.Conv2d(256, 256, 3, padding=1, groups=2),
        nn.Conv2d(256, 256, 3, padding=0),
        nn.Conv2d(256, 256, 5, padding=2),
        nn.Conv2d(256, 256, 3, padding=1, padding_mode="circular"),
    ],
)
def test_others_are_left(other: nn.Conv2d) -> None:
    assert not WideConv2d.fits(other)
