"""The module that stands for a wide 3x3 convolution: outputs and gradients, and when it stands back."""

import copy

import pytest
import torch
from torch import nn

from seenet.model.fast import use_fast, wide
from seenet.model.fast.wide import WideConv2d


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
    monkeypatch.setattr(wide, "convolve", lambda *_: pytest.fail("tiles were used"))
    plain, fast = pair(12)
    x = torch.randn(1, 256, 13, 13)
    torch.testing.assert_close(fast(x).double(), plain(x.double()), rtol=1e-4, atol=1e-4)


def test_under_autocast_it_is_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "convolve", lambda *_: pytest.fail("tiles were used"))
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
