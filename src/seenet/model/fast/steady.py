"""Convolutions of a network that only predicts, by the faster forms: weights transformed once, what follows at each point done on the way.

Each stands for a `FoldedConv` where its form pays, and is called as that: activation(convolution(x) + bias + other). Float32, channels-last
memory.
"""

from typing import Any

import torch
from torch import Tensor, nn

from seenet.model.fast import depthwise, fourier, lines, wide, winograd
from seenet.model.fast.convolution import FoldedConv, FusedConv, finished

KEPT_BYTES = 40 << 20
"""Transformed kernels up to this size are kept; of larger ones the transform costs little beside the convolution, and memory much."""


def is_same(conv: FoldedConv) -> bool:
    """Whether the output has the input's grid, padded with zeros evenly."""
    kernel = conv.weight.shape[-2:]
    padding = tuple(spread * (side // 2) for spread, side in zip(conv.dilation, kernel, strict=True))
    return conv.weight.dtype == torch.float32 and conv.stride == (1, 1) and not conv.same and conv.padding == padding


class SteadyWide(nn.Module):
    """3x3 of many channels by Winograd's tiles; `plain` takes the pictures that tiles do not fit."""

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__()
        self.plain, self.weight, self.bias, self.activation = FusedConv(conv), conv.weight, conv.bias, conv.activation
        self.dilation = conv.dilation[0]
        size = 36 * self.weight.shape[0] * self.weight.shape[1] * self.weight.element_size()
        self.kernels = winograd.transform_kernels(self.weight) if size <= KEPT_BYTES else None

    @staticmethod
    def fits(conv: FoldedConv) -> bool:
        """Whether this form can stand for `conv`."""
        out, into, *kernel = conv.weight.shape
        square = kernel == [3, 3] and conv.dilation[0] == conv.dilation[1]
        return is_same(conv) and square and conv.groups == 1 and min(out, into) >= wide.LEAST_CHANNELS

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        if winograd.waste(x.shape[2], x.shape[3], self.dilation) > wide.MOST_WASTE:
            out: Tensor = self.plain(x) if other is None else self.plain(x, other)
            return out
        kernels = winograd.transform_kernels(self.weight) if self.kernels is None else self.kernels
        y = winograd.convolve(x.permute(0, 2, 3, 1).contiguous(), kernels, self.dilation)
        return _after(y.permute(0, 3, 1, 2), self.bias, other, self.activation)


class SteadyLine(nn.Module):
    """r x 1 or 1 x r through the Fourier transform."""

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__()
        self.upright = conv.weight.shape[2] > 1
        self.weight = conv.weight.flatten(2).permute(2, 1, 0).contiguous()
        self.bias, self.activation = conv.bias, conv.activation

    @staticmethod
    def fits(conv: FoldedConv) -> bool:
        """Whether this form can stand for `conv`."""
        out, into, *kernel = conv.weight.shape
        line = min(kernel) == 1 and max(kernel) % 2 == 1 and max(kernel) >= lines.LEAST_SIZE
        return is_same(conv) and line and conv.dilation == (1, 1) and conv.groups == 1 and min(out, into) >= lines.LEAST_CHANNELS

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        return _after(lines.along(x, self.upright, self.weight, fourier.convolve), self.bias, other, self.activation)


class SteadyDepthwise(nn.Module):
    """Depthwise 3x3 of a large dilation as nine products of shifted pictures."""

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__()
        self.weight = conv.weight.reshape(-1, 9).t().contiguous()
        self.bias, self.activation, self.dilation = conv.bias, conv.activation, conv.dilation[0]

    @staticmethod
    def fits(conv: FoldedConv) -> bool:
        """Whether this form can stand for `conv`."""
        out, into, *kernel = conv.weight.shape
        square = kernel == [3, 3] and conv.dilation[0] == conv.dilation[1] > depthwise.QUICK_DILATION
        return is_same(conv) and square and into == 1 and conv.groups == out

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        y = depthwise.shifted(x.permute(0, 2, 3, 1).contiguous(), self.weight, self.dilation)
        return _after(y.permute(0, 3, 1, 2), self.bias, other, self.activation)


def fuse(module: nn.Module, *, compiled: bool = False) -> None:
    """Put the fastest form in the place of every float32 `FoldedConv` within.

    `compiled`: for `torch.compile`, which calls these forms as they are and fuses what is left as it is.
    """
    for name, child in module.named_children():
        if not isinstance(child, FoldedConv):
            fuse(child, compiled=compiled)
        elif child.weight.dtype == torch.float32:
            setattr(module, name, _form(child, compiled))


def _form(conv: FoldedConv, compiled: bool) -> nn.Module:
    for kind in (SteadyWide, SteadyLine, SteadyDepthwise):
        if kind.fits(conv):
            form: Any = kind(conv)
            if compiled:
                form.forward = torch.compiler.disable(form.forward)  # type: ignore[no-untyped-call]
            return form  # type: ignore[no-any-return]
    return conv if compiled else FusedConv(conv)


def _after(y: Tensor, bias: Tensor | None, other: Tensor | None, activation: nn.Module | None) -> Tensor:
    """What follows a convolution, in its own memory."""
    if bias is not None:
        y.add_(bias[:, None, None])
    return finished(y, other, activation)
