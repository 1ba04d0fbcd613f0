"""Lines through the Fourier transform, and the module that computes by it, against the library's convolution in float64."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from seenet.model.fast import fft_conv, use_fast
from seenet.model.fast.fft_conv import LineConv2d, convolve, weight_gradient


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


def line(kernel: tuple[int, int]) -> nn.Conv2d:
    return nn.Conv2d(64, 64, kernel, padding=(kernel[0] // 2, kernel[1] // 2), bias=False)


@pytest.mark.parametrize("kernel", [(7, 1), (1, 7), (25, 1), (1, 25)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_outputs_and_gradients(kernel: tuple[int, int], channels_last: bool) -> None:
    plain = line(kernel)
    fast = copy.deepcopy(plain)
    use_fast(nn.Sequential(fast))
    assert type(fast) is LineConv2d
    x, grad = torch.randn(2, 64, 15, 70), torch.randn(2, 64, 15, 70)
    results = []
    for module, dtype in ((plain.double(), torch.float64), (fast, torch.float32)):
        image = x.to(dtype, memory_format=torch.channels_last if channels_last else torch.contiguous_format).requires_grad_()
        out = module(image)
        results.append([out.detach(), *torch.autograd.grad(out, [image, *module.parameters()], grad.to(dtype))])
    for expected, found in zip(*results, strict=True):
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_under_autocast_it_is_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fft_conv, "convolve", lambda *_: pytest.fail("frequencies were used"))
    fast = line((9, 1))
    use_fast(nn.Sequential(fast))
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(torch.randn(1, 64, 12, 12)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "other",
    [
        line((5, 1)),
        nn.Conv2d(64, 64, (7, 3), padding=(3, 1), bias=False),
        nn.Conv2d(64, 64, (8, 1), padding=(4, 0), bias=False),
        nn.Conv2d(64, 64, (7, 1), padding=(3, 0)),
        nn.Conv2d(64, 64, (7, 1), bias=False),
        nn.Conv2d(64, 64, (7, 1), padding=(3, 0), groups=64, bias=False),
        nn.Conv2d(16, 64, (7, 1), padding=(3, 0), bias=False),
    ],
)
def test_others_are_left(other: nn.Conv2d) -> None:
    assert not LineConv2d.fits(other)
