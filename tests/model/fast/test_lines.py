"""The module that stands for an r x 1 or 1 x r convolution: outputs, gradients, and when it stands back."""

import copy

import pytest
import torch
from torch import nn

from seenet.model.fast import lines, use_fast
from seenet.model.fast.lines import LineConv2d


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
    monkeypatch.setattr(lines, "convolve", lambda *_: pytest.fail("frequencies were used"))
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
