"""The forms for prediction alone against the folded convolution that they stand for, in float64."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from seenet.model.fast import steady
from seenet.model.fast.convolution import FoldedConv, FusedConv
from seenet.model.fast.steady import SteadyDepthwise, SteadyLine, SteadyWide, fuse

FORMS: dict[type[nn.Module], dict[str, Any]] = {
    SteadyWide: {"in_channels": 256, "out_channels": 264, "kernel_size": 3, "padding": 2, "dilation": 2},
    SteadyLine: {"in_channels": 64, "out_channels": 72, "kernel_size": (9, 1), "padding": (4, 0)},
    SteadyDepthwise: {"in_channels": 16, "out_channels": 16, "kernel_size": 3, "padding": 7, "dilation": 7, "groups": 16},
}


def conv(form: type[nn.Module], bias: bool, activation: nn.Module | None) -> FoldedConv:
    torch.manual_seed(0)
    folded = FoldedConv(nn.Conv2d(**FORMS[form], bias=bias))
    folded.activation = activation
    return folded


def check(folded: FoldedConv, form: type[nn.Module], x: torch.Tensor, summed: bool) -> None:
    root = nn.Sequential(copy.deepcopy(folded))
    fuse(root)
    assert type(root[0]) is form
    expected = folded.double()
    with torch.inference_mode():
        other = torch.randn(expected(x.double()).shape, dtype=torch.float64) if summed else None
        wanted = expected(x.double(), other)
        for _ in range(3):
            found = root[0](x) if other is None else root[0](x, other.float())
            assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("bias", "activation", "summed"), [(False, None, False), (True, nn.ReLU(inplace=True), True), (True, nn.ReLU6(), False)]
)
def test_what_follows_is_done(form: type[nn.Module], bias: bool, activation: nn.Module | None, summed: bool) -> None:
    x = torch.randn(2, FORMS[form]["in_channels"], 16, 25).contiguous(memory_format=torch.channels_last)
    check(conv(form, bias, activation), form, x, summed)


def test_large_kernels_are_transformed_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "KEPT_BYTES", 0)
    check(conv(SteadyWide, True, None), SteadyWide, torch.randn(1, 256, 8, 8), False)


def test_a_picture_that_tiles_do_not_fit() -> None:
    check(conv(SteadyWide, True, nn.ReLU()), SteadyWide, torch.randn(1, 256, 9, 1), False)


@pytest.mark.parametrize("change", [{"stride": 2}, {"padding": 0}, {"dilation": 1}])
def test_others_are_oneDNN_s(change: dict[str, int]) -> None:
    root = nn.Sequential(FoldedConv(nn.Conv2d(**FORMS[SteadyDepthwise] | change)))
    fuse(root)
    assert type(root[0]) is FusedConv
