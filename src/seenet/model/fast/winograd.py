"""3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3): 36 products for 16 points instead of 144.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). A tile of 6x6 points, transformed on both sides, meets the
transformed kernel point by point; the 36 points are 36 matrix products over the channels. The interpolation points 0, 1, -1, 2, -1/2 and
infinity lose less to rounding than the usual 0, 1, -1, 2, -2: some 4e-6 of the largest value in float32, where the plain form has 2e-6.

A dilated convolution is `dilation` squared plain ones on interleaved pictures, so a tile takes every `dilation`-th point. Pictures are
N x h x w x C here, padded with zeros by one `dilation` ("same").
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

POINTS = (0.0, 1.0, -1.0, 2.0, -0.5)
OUT, KERNEL, IN = 4, 3, 6
"""Sides of what a tile gives, of the kernel, of what a tile takes."""
CHUNK_BYTES = 8 << 20
"""Of the largest tensor held at once, of which some four are."""


@cache
def matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Transforms of the tile (6 x 6), of the kernel (6 x 3) and of the products (4 x 6): y = A ((G g) * (B d)), by Toom and Cook."""

    def evaluation(coefficients: int) -> np.ndarray:
        at_infinity = np.eye(coefficients)[-1:]
        return np.concatenate([np.vander(np.array(POINTS), coefficients, increasing=True), at_infinity])

    tile = np.linalg.inv(evaluation(IN)).T
    b, g, a = (torch.from_numpy(np.ascontiguousarray(m)).to(dtype) for m in (tile, evaluation(KERNEL), evaluation(OUT).T))
    return b, g, a


def tiles(height: int, width: int, dilation: int) -> tuple[int, int]:
    """Rows and columns of tiles that cover a picture."""
    return -(-height // (OUT * dilation)), -(-width // (OUT * dilation))


def waste(height: int, width: int, dilation: int) -> float:
    """How many times the picture's points the tiles compute."""
    rows, columns = tiles(height, width, dilation)
    return rows * columns * (OUT * dilation) ** 2 / (height * width)


def transform_kernels(weight: Tensor) -> Tensor:
    """C' x C x 3 x 3 -> 36 x C x C'."""
    _, g, _ = matrices(weight.dtype)
    out, into = weight.shape[:2]
    return (torch.kron(g, g) @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, into, out)


def convolve(x: Tensor, kernels: Tensor, dilation: int) -> Tensor:
    """N x h x w x C, 36 x C x C' (`transform_kernels`) -> N x h x w x C'."""
    n, height, width, _ = x.shape
    rows, columns = tiles(height, width, dilation)
    _, _, a = matrices(x.dtype)
    out_channels = kernels.shape[-1]
    out = x.new_empty(n, rows, OUT, dilation, columns, OUT, dilation, out_channels)
    for image, first, last in _chunks(x, max(x.shape[-1], out_channels), dilation):
        products = torch.bmm(_transformed(x[image], first, last, dilation), kernels)
        # 6 x 6 points to 4 x 4, one side after the other.
        half = torch.matmul(a, products.view(IN, IN, -1))
        points = (a @ half.view(IN, -1)).view(OUT, OUT, last - first, dilation, columns, dilation, out_channels)
        out[image, first:last] = points.permute(2, 0, 3, 4, 1, 5, 6)
    return out.view(n, rows * OUT * dilation, columns * OUT * dilation, out_channels)[:, :height, :width]


def weight_gradient(x: Tensor, grad: Tensor, dilation: int) -> Tensor:
    """Gradient of the weights, C' x C x 3 x 3, by the input N x h x w x C and the output's gradient N x h x w x C'."""
    _, height, width, channels = x.shape
    _, columns = tiles(height, width, dilation)
    _, g, a = matrices(x.dtype)
    out_channels, side = grad.shape[-1], OUT * dilation
    found = x.new_zeros(36, channels, out_channels)
    for image, first, last in _chunks(x, max(channels, out_channels), dilation):
        points = _part(grad[image], first * side, last * side, 0, columns * side)
        points = points.view(last - first, OUT, dilation, columns, OUT, dilation, out_channels)
        half = a.t() @ points.permute(1, 4, 0, 2, 3, 5, 6).reshape(OUT, -1)
        products = torch.matmul(a.t(), half.view(IN, OUT, -1)).view(36, -1, out_channels)
        found.baddbmm_(_transformed(x[image], first, last, dilation).transpose(1, 2), products)
    return (torch.kron(g, g).t() @ found.view(36, -1)).view(3, 3, channels, out_channels).permute(3, 2, 0, 1)


def _part(picture: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Rows and columns of a picture h x w x C, zeros where they lie beyond it; `left` is 0 or less, `right` w or more."""
    height, width, _ = picture.shape
    return F.pad(picture[max(0, top) : bottom], (0, 0, -left, right - width, max(0, -top), max(0, bottom - height)))


def _chunks(x: Tensor, channels: int, dilation: int) -> Iterator[tuple[int, int, int]]:
    """Image, first and last row of tiles, so that no transformed tensor is much over CHUNK_BYTES."""
    rows, columns = tiles(x.shape[1], x.shape[2], dilation)
    of_a_row = 36 * dilation**2 * columns * channels * x.element_size()
    step = max(1, CHUNK_BYTES // of_a_row)
    # Of equal sizes, so that none is left with a row or two.
    step = -(-rows // -(-rows // step))
    for image in range(x.shape[0]):
        for first in range(0, rows, step):
            yield image, first, min(first + step, rows)


def _transformed(picture: Tensor, first: int, last: int, dilation: int) -> Tensor:
    """Rows of tiles of a picture h x w x C, transformed on both sides: 36 x tiles x C."""
    b, _, _ = matrices(picture.dtype)
    height, width, channels = picture.shape
    side, (_, columns) = OUT * dilation, tiles(height, width, dilation)
    padded = _part(picture, first * side - dilation, last * side + dilation, -dilation, columns * side + dilation)
    row, count = padded[0].numel(), (last - first) * dilation
    lines = padded.as_strided((IN, last - first, dilation, row), (dilation * row, side * row, row, 1))
    half = b @ lines.reshape(IN, -1)
    tile = half.as_strided(
        (IN, IN, count, columns, dilation, channels),
        (count * row, dilation * channels, row, side * channels, channels, 1),
    )
    return torch.matmul(b, tile.reshape(IN, IN, -1)).view(36, -1, channels)
