"""Long lines (1 x r convolutions) through the Fourier transform: some two products a point, whatever r is.

In the frequencies of a piece of line a convolution is one complex product each, and a complex product is three real ones. As the pieces are
short, the transforms are small matrices: y = A ((G w) * (B x)), where * is 3 F matrix products over the channels, and A, B, G are real.
Lines are N x n x C here, padded with zeros ("same").
"""

from functools import cache
from math import ceil, pi

import torch
from torch import Tensor
from torch.nn import functional as F

LONGEST = 64
"""Points of a piece at most: the transforms cost as much as its length, against the channels of the products."""


@cache
def matrices(length: int, size: int, alone: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """A (length x 3F), B (3F x points read), G (3F x size) for pieces of `length` points and r = `size`.

    A piece that stands `alone` has zeros beyond both ends, which may overlap in the circle; another reads its neighbours' ends.
    """
    half = size // 2
    period = length + (half if alone else 2 * half)
    read = torch.arange(0 if alone else -half, length + (0 if alone else half), dtype=torch.float64)
    angle = 2 * pi / period * torch.arange(period // 2 + 1, dtype=torch.float64)[:, None]
    # Each frequency but the first and, of an even period, the last stands for its mirror as well.
    single = (angle == 0) | (2 * torch.arange(len(angle))[:, None] == period)
    share = torch.where(single, 1.0, 2.0).double() / period

    def parts(points: Tensor, sign: int) -> Tensor:
        real, imaginary = torch.cos(angle * points), sign * torch.sin(angle * points)
        return torch.cat([real, imaginary, real + imaginary])

    back = angle * torch.arange(length, dtype=torch.float64)
    cos, sin = share * torch.cos(back), share * torch.sin(back)
    a = torch.cat([cos + sin, sin - cos, -sin]).t()
    b = parts(read, -1)
    g = parts(torch.arange(size, dtype=torch.float64) - half, 1)
    return a.to(dtype).contiguous(), b.to(dtype), g.to(dtype)


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """N x n x C, r x C x C' -> N x n x C'."""
    number, length = _pieces(x.shape[1])
    a, b, g = matrices(length, len(weight), number == 1, x.dtype)
    products = torch.bmm(_frequencies(x, b, number, length, len(weight)), _spectrum(weight, g))
    out = torch.matmul(a, products.transpose(0, 1))
    return out.view(len(x), number * length, -1)[:, : x.shape[1]]


def weight_gradient(x: Tensor, grad: Tensor, size: int) -> Tensor:
    """Gradient of the weights, r x C x C', by the input N x n x C and the output's gradient N x n x C'."""
    number, length = _pieces(x.shape[1])
    a, b, g = matrices(length, size, number == 1, x.dtype)
    pieces = F.pad(grad, (0, 0, 0, number * length - grad.shape[1])).reshape(-1, length, grad.shape[-1])
    products = torch.matmul(a.t(), pieces).transpose(0, 1)
    found = torch.bmm(_frequencies(x, b, number, length, size).transpose(1, 2), products)
    return (g.t() @ found.view(len(g), -1)).view(size, x.shape[-1], grad.shape[-1])


def _pieces(side: int) -> tuple[int, int]:
    """Number and length of equal pieces that cover a line."""
    number = ceil(side / LONGEST)
    return number, ceil(side / number)


def _frequencies(x: Tensor, b: Tensor, number: int, length: int, size: int) -> Tensor:
    """3F x pieces x C, a view."""
    if number > 1:
        half = size // 2
        padded = F.pad(x, (0, 0, half, half + number * length - x.shape[1]))
        x = padded.unfold(1, b.shape[1], length).transpose(2, 3).reshape(-1, b.shape[1], x.shape[-1])
    return torch.matmul(b, x).transpose(0, 1)


def _spectrum(weight: Tensor, g: Tensor) -> Tensor:
    size, into, out = weight.shape
    return (g @ weight.reshape(size, -1)).view(-1, into, out)
