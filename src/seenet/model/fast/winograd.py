"""Wide 3x3 convolutions by Winograd's F(4x4, 3x3): 36 products for 16 points instead of 144.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). Each tile of 6x6 points
is transformed on both sides and multiplied point by point with the transformed kernel; that is 36
matrix products over the channels. The interpolation points 0, 1, -1, 2, -1/2 and infinity lose less
to rounding than the usual 0, 1, -1, 2, -2: some 4e-6 of the largest value in float32, where the
plain form loses 2e-6.

A dilated convolution is `dilation` squared plain ones on interleaved images, so a tile takes every
`dilation`-th point. Images are N x h x w x C here, padded with zeros by one `dilation` ("same").
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

POINTS = (0.0, 1.0, -1.0, 2.0, -0.5)
OUT, KERNEL, IN = 4, 3, 6
"""Sides of a tile's output, of the kernel and of a tile's input."""
CHUNK_BYTES = 8 << 20
"""Of the largest tensor of a chunk; about four of that size are in memory at once."""
LEAST_CHANNELS = 256 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 128
"""With fewer channels moving the tiles costs more than the products saved (benchmarks/NOTES.md)."""
MOST_WASTE = 1.5
"""Where tiles reach further beyond the image, the plain form is as fast."""


@cache
def matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return B (6 x 6), G (6 x 3) and A (4 x 6) of y = A ((G g) * (B d)), by Toom and Cook.

    B transforms the tile d, G the kernel g, and A the products.
    """

    def evaluation(coefficients: int) -> np.ndarray:
        powers = np.vander(np.array(POINTS), coefficients, increasing=True)
        return np.concatenate([powers, np.eye(coefficients)[-1:]])  # the last: at infinity

    b, g, a = (
        torch.from_numpy(np.ascontiguousarray(matrix)).to(dtype)
        for matrix in (np.linalg.inv(evaluation(IN)).T, evaluation(KERNEL), evaluation(OUT).T)
    )
    return b, g, a


def tiles(height: int, width: int, dilation: int) -> tuple[int, int]:
    """Return the rows and columns of tiles that cover an image."""
    return -(-height // (OUT * dilation)), -(-width // (OUT * dilation))


def waste(height: int, width: int, dilation: int) -> float:
    """Return the number of points that the tiles compute, relative to those of the image."""
    rows, columns = tiles(height, width, dilation)
    return rows * columns * (OUT * dilation) ** 2 / (height * width)


def transform_kernels(weight: Tensor) -> Tensor:
    """Transform kernels: C' x C x 3 x 3 -> 36 x C x C'."""
    _, g, _ = matrices(weight.dtype)
    out_channels, in_channels = weight.shape[:2]
    transformed = torch.kron(g, g) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    return transformed.view(36, in_channels, out_channels)


def convolve(x: Tensor, kernels: Tensor, dilation: int) -> Tensor:
    """Convolve: N x h x w x C, 36 x C x C' (`transform_kernels`) -> N x h x w x C'."""
    n, height, width, _ = x.shape
    rows, columns = tiles(height, width, dilation)
    _, _, a = matrices(x.dtype)
    out_channels = kernels.shape[-1]
    out = x.new_empty(n, rows, OUT, dilation, columns, OUT, dilation, out_channels)
    for image, first, last in _chunks(x, max(x.shape[-1], out_channels), dilation):
        products = torch.bmm(_transformed(x[image], first, last, dilation), kernels)
        # 6 x 6 points to 4 x 4, one side after the other.
        half = torch.matmul(a, products.view(IN, IN, -1))
        points = (a @ half.view(IN, -1)).view(
            OUT, OUT, last - first, dilation, columns, dilation, out_channels
        )
        out[image, first:last] = points.permute(2, 0, 3, 4, 1, 5, 6)
    out = out.view(n, rows * OUT * dilation, columns * OUT * dilation, out_channels)
    return out[:, :height, :width]


def weight_gradient(x: Tensor, grad: Tensor, dilation: int) -> Tensor:
    """Return the gradient of the weights, C' x C x 3 x 3.

    Args:
        x: N x h x w x C.
        grad: Gradient of the output, N x h x w x C'.
    """
    _, height, width, channels = x.shape
    _, columns = tiles(height, width, dilation)
    _, g, a = matrices(x.dtype)
    out_channels, side = grad.shape[-1], OUT * dilation
    kernels = x.new_zeros(36, channels, out_channels)
    for image, first, last in _chunks(x, max(channels, out_channels), dilation):
        points = _crop(grad[image], first * side, last * side, 0, columns * side)
        points = points.view(last - first, OUT, dilation, columns, OUT, dilation, out_channels)
        half = a.t() @ points.permute(1, 4, 0, 2, 3, 5, 6).reshape(OUT, -1)
        products = torch.matmul(a.t(), half.view(IN, OUT, -1)).view(36, -1, out_channels)
        kernels.baddbmm_(_transformed(x[image], first, last, dilation).transpose(1, 2), products)
    weight = (torch.kron(g, g).t() @ kernels.view(36, -1)).view(3, 3, channels, out_channels)
    return weight.permute(3, 2, 0, 1)


def _crop(image: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Return rows and columns of an image h x w x C, with zeros beyond its borders.

    `left` is at most 0 and `right` at least w.
    """
    height, width, _ = image.shape
    return F.pad(
        image[max(0, top) : bottom],
        (0, 0, -left, right - width, max(0, -top), max(0, bottom - height)),
    )


def _chunks(x: Tensor, channels: int, dilation: int) -> Iterator[tuple[int, int, int]]:
    """Yield image, first and last row of tiles: chunks of about CHUNK_BYTES when transformed."""
    rows, columns = tiles(x.shape[1], x.shape[2], dilation)
    row_bytes = 36 * dilation**2 * columns * channels * x.element_size()
    step = max(1, CHUNK_BYTES // row_bytes)
    # Equal chunks: the last one is not left with a row or two.
    step = -(-rows // -(-rows // step))
    for image in range(x.shape[0]):
        for first in range(0, rows, step):
            yield image, first, min(first + step, rows)


def _transformed(image: Tensor, first: int, last: int, dilation: int) -> Tensor:
    """Return rows of tiles of an image h x w x C, transformed on both sides: 36 x tiles x C."""
    b, _, _ = matrices(image.dtype)
    height, width, channels = image.shape
    side, (_, columns) = OUT * dilation, tiles(height, width, dilation)
    padded = _crop(
        image,
        first * side - dilation,
        last * side + dilation,
        -dilation,
        columns * side + dilation,
    )
    row, count = padded[0].numel(), (last - first) * dilation
    lines = padded.as_strided(
        (IN, last - first, dilation, row), (dilation * row, side * row, row, 1)
    )
    half = b @ lines.reshape(IN, -1)
    columns_of_points = half.as_strided(
        (IN, IN, count, columns, dilation, channels),
        (count * row, dilation * channels, row, side * channels, channels, 1),
    )
    return torch.matmul(b, columns_of_points.reshape(IN, IN, -1)).view(36, -1, channels)


class _Winograd(torch.autograd.Function):
    """`convolve` with gradients: N x h x w x C, C' x C x 3 x 3 -> N x h x w x C'."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return convolve(x, transform_kernels(weight), dilation)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        needs_x, needs_weight, _ = ctx.needs_input_grad
        turned = weight.flip(2, 3).transpose(0, 1)
        return (
            convolve(grad, transform_kernels(turned), ctx.dilation) if needs_x else None,
            weight_gradient(x, grad, ctx.dilation) if needs_weight else None,
            None,
        )


class WinogradConv2d(nn.Conv2d):
    """`nn.Conv2d` 3x3 of many channels, "same" padding; channels-last memory in and out.

    It computes in float32; under autocast it is the plain form.
    """

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Tell whether this form can stand for a convolution, plain or folded."""
        return (
            conv.kernel_size == (3, 3)
            and conv.groups == 1
            and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS
            and conv.stride == (1, 1)
            and conv.dilation[0] == conv.dilation[1]
            and conv.padding == conv.dilation
            and conv.padding_mode == "zeros"
        )

    def forward(self, x: Tensor) -> Tensor:
        dilation = self.dilation[0]
        too_small = waste(x.shape[2], x.shape[3], dilation) > MOST_WASTE
        if too_small or torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        out: Tensor = _Winograd.apply(x.permute(0, 2, 3, 1).contiguous(), self.weight, dilation)
        if self.bias is not None:
            out = out + self.bias
        return out.permute(0, 3, 1, 2)
