"""Convolutions with batch norm, sum and activation folded in, in plain torch."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.model.seenet import LocalConv

ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Hardswish: ("hardswish", []),
    nn.SiLU: ("swish", []),
}
"""Activations that can be folded, with oneDNN's name and numbers.

Tanh and sigmoid are not among them: oneDNN's are off by 1e-5.
"""


class FoldedConv(nn.Module):
    """activation(convolution(x) + bias + other): N x C x h x w -> N x O x h' x w'.

    `other` is optional and has the output's shape.

    Attributes:
        same: Pad as TensorFlow does, by the size of x.
        overwrites: The memory of `other` may be taken for the result.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.register_buffer("weight", conv.weight.detach())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.kernel_size, self.padding_mode = conv.kernel_size, conv.padding_mode
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        self.same = isinstance(conv, Conv2dSame)
        self.padding: Any = (0, 0) if self.same else conv.padding
        self.activation: nn.Module | None = None
        self.overwrites = False

    def scale(self, factor: Tensor, shift: Tensor | None = None) -> None:
        """Multiply each output channel by its factor (float64) and add its shift."""
        weight = torch.empty_like(self.weight, memory_format=torch.channels_last)
        # In chunks: a float64 copy of the largest kernel would raise the peak of memory.
        for start in range(0, len(weight), 64):
            rows = slice(start, start + 64)
            weight[rows] = self.weight[rows] * factor[rows, None, None, None]
        self.weight = weight
        if self.bias is not None or shift is not None:
            bias = torch.zeros_like(factor) if self.bias is None else self.bias * factor
            self.bias = (bias if shift is None else bias + shift).to(weight.dtype)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        if self.same:
            x = pad_same(x, self.kernel_size, self.stride, self.dilation)
        y = F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )
        return add_and_activate(y, other, self.activation)


def add_and_activate(y: Tensor, other: Tensor | None, activation: nn.Module | None) -> Tensor:
    """Return activation(y + other), in the memory of y where that has the shape of the sum."""
    if other is not None:
        y = y.add_(other) if other.shape == y.shape else y + other
    return y if activation is None else activation(y)


def scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Return s and t, float64, of a batch norm y = x s + t in eval mode.

    s = gamma / sqrt(variance + eps), t = beta - mean s.
    """
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


class FoldedLocalConv(nn.Module):
    """`LocalConv` (Fig. 4b) with its norm and ReLU folded into the last of its convolutions."""

    def __init__(self, local: LocalConv) -> None:
        super().__init__()
        pairs: Any = (local.column_row, local.row_column)
        self.first, self.second = (
            nn.ModuleList(FoldedConv(conv) for conv in pair) for pair in pairs
        )
        factor, shift = scale_and_shift(local.norm)
        other: Any = self.first[1]
        other.scale(factor)
        last: Any = self.second[1]
        last.scale(factor, shift)
        last.activation, last.overwrites = nn.ReLU(inplace=True), True

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second[1](self.second[0](x), self.first[1](self.first[0](x)))
        return out


class FoldedConcatConv(nn.Module):
    """A folded 1x1 convolution of a concatenation, as a sum of convolutions of its parts.

    Args:
        channels: Of the parts.
    """

    def __init__(self, conv: FoldedConv, channels: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for number, weight in enumerate(torch.split(conv.weight, list(channels), dim=1)):
            part = copy.copy(conv)
            # A copy shares these dictionaries with the original. The first part adds the bias, the
            # last one activates.
            bias = conv.bias if number == 0 else None
            part._buffers = {"weight": weight.contiguous(), "bias": bias}
            part._modules = {"activation": conv.activation if number == len(channels) - 1 else None}
            part.overwrites = number > 0
            self.convs.append(part)

    def forward(self, parts: list[Tensor]) -> Tensor:
        total: Tensor = self.convs[0](parts[0])
        for conv, part in zip(self.convs[1:], parts[1:], strict=True):
            total = conv(part, total)
        return total


def pad_same(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    value: float = 0.0,
) -> Tensor:
    """Pad N x C x h x w as TensorFlow does, by its size; as timm's function of this name.

    The sizes are computed with whole numbers: a trace of timm's formula, which uses a float and a
    maximum, takes torch six times as long to export.
    """
    height, width = map(same_padding, x.shape[-2:], kernel, stride, dilation)
    sides = (width // 2, width - width // 2, height // 2, height - height // 2)
    return F.pad(x, sides, value=value)


def same_padding(side: int, kernel: int, stride: int, dilation: int) -> int:
    """Return TensorFlow's padding of a side.

    For an effective kernel K at stride s, (ceil(x / s) - 1) s + K - x = K - s + (-x mod s), but at
    least 0, which it is anyway where K >= s.
    """
    span = (kernel - 1) * dilation + 1
    padding = span - stride + -side % stride
    return padding if span >= stride else max(padding, 0)
