"""`use_fast`: every faster form of a convolution against the plain one in float64."""

import copy
import math
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from seenet.model.depthwise import DepthwiseConv2d
from seenet.model.fast import fft_conv, use_fast, winograd
from seenet.model.fast.depthwise import ShiftedDepthwiseConv2d
from seenet.model.fast.fft_conv import FFTConv2d
from seenet.model.fast.winograd import WinogradConv2d


def depthwise(channels: int, rate: int, **options: Any) -> nn.Conv2d:
    defaults = {"padding": rate, "dilation": rate, "groups": channels, "bias": False}
    return DepthwiseConv2d(channels, channels, 3, **defaults | options)


def line(*kernel: int, channels: int = 64, **options: Any) -> nn.Conv2d:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(channels, 64, kernel, **{"padding": padding, "bias": False} | options)


def wide(rate: int = 1, channels: int = 256, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, 256, 3, **{"padding": rate, "dilation": rate} | options)


def faster(plain: nn.Conv2d, form: type[nn.Conv2d]) -> nn.Conv2d:
    fast = copy.deepcopy(plain)
    use_fast(nn.Sequential(fast))
    assert type(fast) is form
    return fast


def check(
    plain: nn.Conv2d,
    form: type[nn.Conv2d],
    x: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    tolerance: float = 1e-5,
) -> None:
    """Compare output and gradients with the plain form's in float64."""
    fast, results = faster(plain, form).to(dtype), []
    grad = torch.randn(plain(x).shape)
    for module in (plain.double(), fast):
        image = x.to(module.weight.dtype).requires_grad_()
        out = module(image)
        gradients = torch.autograd.grad(out, [image, *module.parameters()], grad.to(image.dtype))
        results.append([out.detach(), *gradients])
    for expected, found in zip(*results, strict=True):
        atol = tolerance * float(expected.abs().max())
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=atol)


SIDES = st.integers(1, 30)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 5), SIDES, SIDES, st.integers(2, 28), st.booleans())
def test_depthwise(
    batch: int, channels: int, height: int, width: int, rate: int, channels_last: bool
) -> None:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(batch, channels, height, width).contiguous(memory_format=memory_format)
    check(depthwise(channels, rate), ShiftedDepthwiseConv2d, x)


@pytest.mark.parametrize("kernel", [(7, 1), (1, 7), (25, 1), (1, 25)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_lines(kernel: tuple[int, int], memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 64, 15, 70).contiguous(memory_format=memory_format)
    check(line(*kernel), FFTConv2d, x)


@pytest.mark.parametrize(("rate", "bias"), [(1, False), (2, True)])
def test_wide(rate: int, bias: bool) -> None:
    check(wide(rate, bias=bias), WinogradConv2d, torch.randn(2, 256, 15, 17))


CHANNELS = st.integers(1, 4)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 200), st.integers(0, 14), CHANNELS, CHANNELS)
@example(side=64, half=12, into=3, out=2)
@example(side=65, half=12, into=3, out=2)
@example(side=129, half=12, into=3, out=2)
def test_lines_of_any_length(side: int, half: int, into: int, out: int) -> None:
    """In float64, where rounding does not matter; pieces of 64 points meet without a seam."""
    plain = nn.Conv2d(into, out, (2 * half + 1, 1), padding=(half, 0), bias=False)
    with patch.multiple(fft_conv, LEAST_CHANNELS=1, LEAST_SIZE=1):
        check(plain, FFTConv2d, torch.randn(2, into, side, 2), torch.float64, 1e-9)


@settings(deadline=None, max_examples=40)
@given(CHANNELS, CHANNELS, st.integers(1, 26), st.integers(1, 26), st.integers(1, 5), st.booleans())
def test_wide_of_any_size(
    into: int, out: int, height: int, width: int, rate: int, chunks: bool
) -> None:
    """In float64, where rounding does not matter, whole and in the smallest chunks."""
    plain = nn.Conv2d(into, out, 3, padding=rate, dilation=rate)
    size = 1 if chunks else winograd.CHUNK_BYTES
    with patch.multiple(winograd, LEAST_CHANNELS=1, MOST_WASTE=math.inf, CHUNK_BYTES=size):
        check(plain, WinogradConv2d, torch.randn(2, into, height, width), torch.float64, 1e-9)


def test_waste_counts_points_beyond_the_image() -> None:
    found = [winograd.waste(8, 16, 2), winograd.waste(9, 16, 2), winograd.waste(45, 60, 12)]
    assert found == [1, 16 / 9, 48 * 96 / (45 * 60)]


def test_depthwise_computes_in_float32_under_bf16() -> None:
    module, x = depthwise(8, 9), torch.randn(2, 8, 20, 20).to(torch.bfloat16)
    exact = copy.deepcopy(module).double()(x.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = faster(module, ShiftedDepthwiseConv2d)(x)
    assert found.dtype == torch.bfloat16
    # One rounding: half of the last of eight bits.
    assert ((found.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-6).all()


@pytest.mark.parametrize(
    ("plain", "form", "module"),
    [(line(9, 1), FFTConv2d, fft_conv), (wide(), WinogradConv2d, winograd)],
)
def test_the_plain_form_under_autocast(
    plain: nn.Conv2d, form: type[nn.Conv2d], module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "convolve", lambda *_: pytest.fail("the faster form was used"))
    x = torch.randn(1, plain.in_channels, 12, 12)
    with torch.autocast("cpu", torch.bfloat16):
        assert faster(plain, form)(x).dtype == torch.bfloat16


def test_the_plain_form_where_tiles_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "convolve", lambda *_: pytest.fail("tiles were used"))
    check(wide(12), WinogradConv2d, torch.randn(1, 256, 13, 13))


@pytest.mark.parametrize(
    "other",
    [
        depthwise(4, 1),
        depthwise(4, 2, groups=1),
        DepthwiseConv2d(4, 8, 3, padding=2, dilation=2, groups=4, bias=False),
        depthwise(4, 2, bias=True),
        depthwise(4, 2, padding=1),
        depthwise(4, 2, stride=2),
        depthwise(4, 2, padding_mode="reflect"),
        line(5, 1),
        line(7, 3),
        line(8, 1),
        line(7, 1, bias=True),
        line(7, 1, padding=0),
        line(7, 1, groups=64),
        line(7, 1, channels=16),
        wide(channels=64),
        wide(stride=2),
        wide(groups=2),
        wide(padding=0),
        nn.Conv2d(256, 256, 5, padding=2),
        wide(padding_mode="circular"),
    ],
)
def test_other_convolutions_are_left(other: nn.Conv2d) -> None:
    kind = type(other)
    use_fast(nn.Sequential(other))
    assert type(other) is kind
