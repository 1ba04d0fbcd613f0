"""Tiles of a picture: what must be known of the whole one, so that a tile's grids are parts of its grids."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A tile that begins at row and column `origin` (multiples of 32) of a picture of `whole` = (height, width), padded sides included."""

    origin: tuple[int, int]
    whole: tuple[int, int]

    def resized(self, x: Tensor, stride: int, like: Tensor, to: int) -> Tensor:
        """The tile's part of what the whole picture's grid N x C x h x w of this `stride` would be, resized to the grid of stride `to`.

        Bilinear, align_corners=False; `like` has that grid's size in the tile. Near a cut side the tile's own border stands in.
        """
        for axis in (2, 3):
            begin, side = self.origin[axis - 2], self.whole[axis - 2]
            here = torch.arange(begin // to, begin // to + like.shape[axis], dtype=torch.float64, device="cpu")
            count = ceil(side / stride)
            where = ((here + 0.5) * count / ceil(side / to) - 0.5).clamp(0, count - 1) - begin // stride
            last = x.shape[axis] - 1
            where = where.clamp(0, last)
            below = where.long()
            weight = (where - below).to(x.device, x.dtype).view((-1, 1) if axis == 2 else (-1,))
            above = (below + 1).clamp(max=last).to(x.device)
            x = torch.lerp(x.index_select(axis, below.to(x.device)), x.index_select(axis, above), weight)
        return x


def stride_of(grid: tuple[int, int], image: tuple[int, int]) -> int:
    """The stride of a grid of this size on an image of that size; 0 where it is no power of two up to 32, or not the same both ways."""
    fits = (
        stride for stride in (1, 2, 4, 8, 16, 32) if all(ceil(side / stride) == points for side, points in zip(image, grid, strict=True))
    )
    return next(fits, 0)
