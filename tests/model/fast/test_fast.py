"""`use_fast`: every faster form of a convolution against the plain one in float64, and when it stands back."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seenet.model.fast import fft_conv, use_fast, winograd
from seenet.model.fast.depthwise import ShiftedDepthwiseConv2d
from seenet.model.fast.fft_conv import FFTConv2d
from seenet.model.fast.winograd import WinogradConv2d


def depthwise(channels: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False)


def line(*kernel: int) -> nn.Conv2d:
    return nn.Conv2d(64, 64, kernel, padding=(kernel[0] // 2, kernel[1] // 2), bias=False)


def wide(dilation: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(256, 256, 3, **{"padding": dilation, "dilation": dilation, **options})


def faster(plain: nn.Conv2d, form: type[nn.Conv2d]) -> nn.Conv2d:
    fast = copy.deepcopy(plain)
    use_fast(nn.Sequential(fast))
    assert type(fast) is form
    return fast


def check(plain: nn.Conv2d, form: type[nn.Conv2d], x: torch.Tensor) -> None:
    """Output and gradients, float32 against the plain form in float64, relative to the largest value."""
    fast, results = faster(plain, form), []
    grad = torch.randn(plain(x).shape)
    for module, dtype in ((plain.double(), torch.float64), (fast, torch.float32)):
        image = x.to(dtype).requires_grad_()
        out = module(image)
        results.append([out.detach(), *torch.autograd.grad(out, [image, *module.parameters()], grad.to(dtype))])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 30), st.integers(1, 30), st.integers(2, 28), st.booleans())
def test_depthwise(batch: int, channels: int, height: int, width: int, dilation: int, channels_last: bool) -> None:
    x = torch.randn(batch, channels, height, width)
    check(depthwise(channels, dilation), ShiftedDepthwiseConv2d, x.contiguous(memory_format=torch.channels_last) if channels_last else x)


@pytest.mark.parametrize("kernel", [(7, 1), (1, 7), (25, 1), (1, 25)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_lines(kernel: tuple[int, int], memory_format: torch.memory_format) -> None:
    check(line(*kernel), FFTConv2d, torch.randn(2, 64, 15, 70).contiguous(memory_format=memory_format))


@pytest.mark.parametrize(("dilation", "bias"), [(1, False), (2, True)])
def test_wide(dilation: int, bias: bool) -> None:
    check(wide(dilation, bias=bias), WinogradConv2d, torch.randn(2, 256, 15, 17))


def test_only_what_needs_a_gradient_gets_one() -> None:
    module = faster(depthwise(4, 7), ShiftedDepthwiseConv2d)
    module.weight.requires_grad_(False)
    x = torch.randn(2, 4, 9, 9, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert module.weight.grad is None


def test_depthwise_computes_in_float32_under_bf16() -> None:
    module = depthwise(8, 9)
    x = torch.randn(2, 8, 20, 20).to(torch.bfloat16)
    exact = module.double()(x.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = faster(module.float(), ShiftedDepthwiseConv2d)(x)
    assert found.dtype == torch.bfloat16
    # One rounding: half of the last of eight bits.
    assert ((found.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-6).all()


@pytest.mark.parametrize(("plain", "form", "module"), [(line(9, 1), FFTConv2d, fft_conv), (wide(), WinogradConv2d, winograd)])
def test_the_plain_form_under_autocast(plain: nn.Conv2d, form: type[nn.Conv2d], module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "convolve", lambda *_: pytest.fail("the faster form was used"))
    with torch.autocast("cpu", torch.bfloat16):
        assert faster(plain, form)(torch.randn(1, plain.in_channels, 12, 12)).dtype == torch.bfloat16


def test_the_plain_form_where_tiles_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "convolve", lambda *_: pytest.fail("tiles were used"))
    check(wide(12), WinogradConv2d, torch.randn(1, 256, 13, 13))


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
        line(5, 1),
        nn.Conv2d(64, 64, (7, 3), padding=(3, 1), bias=False),
        nn.Conv2d(64, 64, (8, 1), padding=(4, 0), bias=False),
        nn.Conv2d(64, 64, (7, 1), padding=(3, 0)),
        nn.Conv2d(64, 64, (7, 1), bias=False),
        nn.Conv2d(64, 64, (7, 1), padding=(3, 0), groups=64, bias=False),
        nn.Conv2d(16, 64, (7, 1), padding=(3, 0), bias=False),
        nn.Conv2d(64, 256, 3, padding=1),
        wide(stride=2),
        wide(groups=2),
        wide(padding=0),
        nn.Conv2d(256, 256, 5, padding=2),
        wide(padding_mode="circular"),
    ],
)
def test_others_are_left(other: nn.Conv2d) -> None:
    use_fast(nn.Sequential(other))
    assert type(other) is nn.Conv2d
