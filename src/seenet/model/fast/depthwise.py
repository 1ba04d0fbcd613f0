"""Depthwise atrous 3x3 convolution as nine products of shifted images.

On CPUs the library's kernel is slow where the dilation passes 4, and its gradients from 2 on: they
take up to 25 times as long as moving the memory, and in bf16 some are wrong (docs/precision.md).
Here each tap multiplies a whole shifted image by one number a channel. Beyond the border there are
zeros, so large dilations have less to do, not more.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.model.depthwise import DepthwiseConv2d

QUICK_DILATION = 4
"""Up to this dilation the library's forward pass is faster."""


def shifted(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Convolve: N x h x w x C, weights 9 x C -> N x h x w x C."""
    out = x * weight[4]
    for tap, written, read in _taps(x, dilation):
        if tap != 4:
            out[written].addcmul_(x[read], weight[tap])
    return out


def _taps(x: Tensor, dilation: int) -> list[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
    """List the taps of 3x3 that meet an image: number, and what it writes and reads of NHWC."""
    every = slice(None)
    return [
        (3 * i + j, (every, rows[0], columns[0]), (every, rows[1], columns[1]))
        for i, rows in _taps_along(x.shape[1], dilation)
        for j, columns in _taps_along(x.shape[2], dilation)
    ]


def _taps_along(side: int, dilation: int) -> list[tuple[int, tuple[slice, slice]]]:
    """List those of three taps that meet a side: number, and the rows that it writes and reads."""
    return [
        (
            number,
            (
                slice(max(0, -shift), side - max(0, shift)),
                slice(max(0, shift), side - max(0, -shift)),
            ),
        )
        for number, shift in enumerate((-dilation, 0, dilation))
        if abs(shift) < side
    ]


class _Depthwise(torch.autograd.Function):
    """`shifted` with gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        if dilation <= QUICK_DILATION:
            kernel = weight.t().reshape(-1, 1, 3, 3)
            images, groups = x.permute(0, 3, 1, 2), len(kernel)
            out = F.conv2d(images, kernel, None, 1, dilation, dilation, groups)
            return out.permute(0, 2, 3, 1)
        return shifted(x, weight, dilation)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        needs_x, needs_weight, _ = ctx.needs_input_grad
        grad_x = grad * weight[4] if needs_x else None
        grad_weight = torch.zeros_like(weight) if needs_weight else None
        for tap, written, read in _taps(x, ctx.dilation):
            if grad_weight is not None:
                grad_weight[tap] = (grad[written] * x[read]).sum((0, 1, 2))
            if grad_x is not None and tap != 4:
                grad_x[read].addcmul_(grad[written], weight[tap])
        return grad_x, grad_weight, None


def fits(conv: nn.Conv2d) -> bool:
    """Tell whether this form can stand for a convolution, plain or folded, but for its bias."""
    return (
        conv.kernel_size == (3, 3)
        and conv.groups == conv.in_channels == conv.out_channels
        and conv.stride == (1, 1)
        and conv.dilation[0] == conv.dilation[1] > 1
        and conv.padding == conv.dilation
        and conv.padding_mode == "zeros"
    )


class ShiftedDepthwiseConv2d(DepthwiseConv2d):
    """Depthwise 3x3 without bias, "same" padding; channels-last memory in and out.

    It computes in float32 at least, also under autocast: nine roundings to bf16 would add up.
    """

    @staticmethod
    def fits(conv: DepthwiseConv2d) -> bool:
        """Tell whether this form can stand for `conv`."""
        return conv.bias is None and fits(conv)

    def forward(self, x: Tensor) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            images = x.to(exact).permute(0, 2, 3, 1).contiguous()
            weight = self.weight.to(exact).view(-1, 9).t()
            out: Tensor = _Depthwise.apply(images, weight, self.dilation[0])
        return out.permute(0, 3, 1, 2).to(x.dtype)
