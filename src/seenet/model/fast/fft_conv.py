"""Long r x 1 and 1 x r convolutions of SeEM-FS (Fig. 4b) through the Fourier transform.

They take about two products a point, whatever r is. In the frequencies of a piece of a line a
convolution is one complex product each, which is three real ones. As the pieces are short, the
transforms are small matrices: y = A ((G w) * (B x)), where * is 3 F matrix products over the
channels, F is the number of frequencies, and A, B, G are real. Lines are N x n x C here, padded
with zeros ("same").
"""

from functools import cache
from math import ceil, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LONGEST = 64
"""Most points of a piece: the cost of its transform per point grows with its length."""
LEAST_SIZE = 7
"""Shorter kernels are as fast in the plain form (benchmarks/NOTES.md)."""
LEAST_CHANNELS = 64


@cache
def matrices(
    length: int, size: int, alone: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return A (length x 3F), B (3F x points read) and G (3F x size).

    Args:
        length: Points of a piece.
        size: r.
        alone: A piece is a whole line, with zeros beyond both ends, which may overlap in the
            circle; otherwise it also reads r // 2 points of each neighbour.
    """
    half = size // 2
    period = length + (half if alone else 2 * half)
    read = torch.arange(0 if alone else -half, length + (0 if alone else half), dtype=torch.float64)
    angle = 2 * pi / period * torch.arange(period // 2 + 1, dtype=torch.float64)[:, None]
    # Every frequency stands for its mirror as well, except the first and that of half the period.
    single = (angle == 0) | (2 * torch.arange(len(angle))[:, None] == period)
    share = torch.where(single, 1.0, 2.0).double() / period

    def transform(points: Tensor, sign: int) -> Tensor:
        real, imaginary = torch.cos(angle * points), sign * torch.sin(angle * points)
        return torch.cat([real, imaginary, real + imaginary])

    back = angle * torch.arange(length, dtype=torch.float64)
    cos, sin = share * torch.cos(back), share * torch.sin(back)
    a = torch.cat([cos + sin, sin - cos, -sin]).t()
    b = transform(read, -1)
    g = transform(torch.arange(size, dtype=torch.float64) - half, 1)
    return a.to(dtype).contiguous(), b.to(dtype), g.to(dtype)


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve lines: N x n x C, weights r x C x C' -> N x n x C'."""
    number, length = _pieces(x.shape[1])
    a, b, g = matrices(length, len(weight), number == 1, x.dtype)
    # Nested, so that neither factor is in memory longer than needed.
    products = torch.bmm(
        _frequencies(x, b, number, length, len(weight)),
        (g @ weight.flatten(1)).view(-1, *weight.shape[1:]),
    )
    out = torch.matmul(a, products.transpose(0, 1))
    return out.view(len(x), number * length, -1)[:, : x.shape[1]]


def weight_gradient(x: Tensor, grad: Tensor, size: int) -> Tensor:
    """Return the gradient of the weights, r x C x C'.

    Args:
        x: N x n x C.
        grad: Gradient of the output, N x n x C'.
        size: r.
    """
    number, length = _pieces(x.shape[1])
    a, b, g = matrices(length, size, number == 1, x.dtype)
    padded = F.pad(grad, (0, 0, 0, number * length - grad.shape[1]))
    products = torch.matmul(a.t(), padded.reshape(-1, length, grad.shape[-1])).transpose(0, 1)
    kernels = torch.bmm(_frequencies(x, b, number, length, size).transpose(1, 2), products)
    return (g.t() @ kernels.view(len(g), -1)).view(size, x.shape[-1], grad.shape[-1])


def _pieces(side: int) -> tuple[int, int]:
    """Return number and length of the equal pieces that cover a line."""
    number = ceil(side / LONGEST)
    return number, ceil(side / number)


def _frequencies(x: Tensor, b: Tensor, number: int, length: int, size: int) -> Tensor:
    """Return the pieces of N x n x C transformed: 3F x pieces x C, a view."""
    if number > 1:
        half = size // 2
        padded = F.pad(x, (0, 0, half, half + number * length - x.shape[1]))
        pieces = padded.unfold(1, b.shape[1], length).transpose(2, 3)
        x = pieces.reshape(-1, b.shape[1], x.shape[-1])
    return torch.matmul(b, x).transpose(0, 1)


class _Line(torch.autograd.Function):
    """`convolve_lines` with gradients. It keeps x itself, not its lines, which may be a copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, vertical: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.vertical = vertical
        return convolve_lines(x, vertical, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        (grad,), vertical = grads, ctx.vertical
        needs_x, needs_weight, _ = ctx.needs_input_grad
        turned = weight.flip(0).transpose(1, 2)
        return (
            convolve_lines(grad, vertical, turned) if needs_x else None,
            weight_gradient(
                _lines(x, vertical).flatten(0, 1), _lines(grad, vertical).flatten(0, 1), len(weight)
            )
            if needs_weight
            else None,
            None,
        )


def convolve_lines(x: Tensor, vertical: bool, weight: Tensor) -> Tensor:
    """Convolve the columns (`vertical`) or rows of N x C x h x w by weights r x C x C'."""
    lines = _lines(x, vertical)
    out = convolve(lines.flatten(0, 1), weight).reshape(*lines.shape[:3], -1)
    return out.permute(0, 3, 2, 1) if vertical else out.permute(0, 3, 1, 2)


def _lines(x: Tensor, vertical: bool) -> Tensor:
    """Return columns (`vertical`) or rows of N x C x h x w as N x lines x points x C."""
    return x.permute(0, 3, 2, 1) if vertical else x.permute(0, 2, 3, 1)


def fits(conv: nn.Conv2d) -> bool:
    """Tell whether this form can stand for a convolution, plain or folded, but for its bias."""
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
    )


class FFTConv2d(nn.Conv2d):
    """`nn.Conv2d` r x 1 or 1 x r, "same" padding, without bias; channels-last memory in and out.

    It computes in float32; under autocast it is the plain form.
    """

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Tell whether this form can stand for `conv`."""
        return conv.bias is None and fits(conv)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        weight = self.weight.flatten(2).permute(2, 1, 0)
        out: Tensor = _Line.apply(x, weight, self.kernel_size[0] > 1)
        return out
