"""The r x 1 and 1 x r convolutions of SeEM-FS (Fig. 4b) through the Fourier transform: forward pass and both gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seenet.model.fast.fourier import convolve, weight_gradient

LEAST_SIZE = 7
"""Shorter lines are as fast in the plain form (benchmarks/NOTES.md)."""
LEAST_CHANNELS = 64


class _Line(torch.autograd.Function):
    """As `along`, with gradients. What it keeps is x itself, not its lines, which may be a copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, upright: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.upright = upright
        return along(x, upright, weight, convolve)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        (grad,), upright = grads, ctx.upright
        needs_x, needs_weight, _ = ctx.needs_input_grad
        return (
            along(grad, upright, weight.flip(0).transpose(1, 2), convolve) if needs_x else None,
            weight_gradient(_lines(x, upright).flatten(0, 1), _lines(grad, upright).flatten(0, 1), len(weight)) if needs_weight else None,
            None,
        )


def along(x: Tensor, upright: bool, weight: Tensor, convolve: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """N x C x h x w -> N x C' x h x w by a convolution of lines: its columns where `upright`, else its rows; weights r x C x C'."""
    lines = _lines(x, upright)
    out = convolve(lines.flatten(0, 1), weight).reshape(*lines.shape[:3], -1)
    return out.permute(0, 3, 2, 1) if upright else out.permute(0, 3, 1, 2)


def _lines(x: Tensor, upright: bool) -> Tensor:
    """N x C x h x w -> N x lines x points x C; the columns of N x h x w x C are the rows of N x w x h x C."""
    return x.permute(0, 3, 2, 1) if upright else x.permute(0, 2, 3, 1)


class LineConv2d(nn.Conv2d):
    """`nn.Conv2d` r x 1 or 1 x r, "same" padding, without bias; float32, channels-last memory in and out. Under autocast the plain form."""

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether this form can stand for `conv`."""
        size = max(conv.kernel_size)
        return (
            min(conv.kernel_size) == 1
            and size >= LEAST_SIZE
            and size % 2 == 1
            and conv.groups == 1
            and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS
            and conv.stride == conv.dilation == (1, 1)
            and conv.padding == tuple(side // 2 for side in conv.kernel_size)
            and conv.padding_mode == "zeros"
            and conv.bias is None
        )

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        out: Tensor = _Line.apply(x, self.weight.flatten(2).permute(2, 1, 0), self.kernel_size[0] > 1)
        return out
