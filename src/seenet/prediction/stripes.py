"""Scores at a picture's size, some rows at a time: whole they would take 4 K bytes a pixel, a stripe of them stays in the cache."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from seenet.prediction.tiled import TiledGrid

STRIPE = {"cpu": 2**19}
"""Numbers in a stripe, by device."""
ELSEWHERE = 2**25
"""On devices where each operation costs more to start than its numbers to compute."""
LEAST_ROWS = 8
"""However many classes there are: beside these rows of the grid are resized twice."""


class Grid:
    """Scores N x K x h x w on the head's own grid, resized to `full` by rows: bilinear, align_corners=False.

    Rows do not depend on the stripe that they are asked for in. They differ from `F.interpolate`'s by rounding.
    """

    def __init__(self, scores: Tensor | TiledGrid, full: tuple[int, int]) -> None:
        self.scores, self.full = scores.float().contiguous() if isinstance(scores, Tensor) else scores, full
        height = scores.shape[-2]
        # As torch has it: the factor in float32, then one rounding.
        factor = (torch.tensor(float(height), dtype=torch.float32) / full[0]).double()
        places = ((torch.arange(full[0]).double() + 0.5) * factor - 0.5).float().clamp_min(0)
        self._above = places.long().clamp_max(height - 1)
        self._weight = (places - self._above)[:, None]

    def rows(self, top: int, bottom: int, width: int) -> Tensor:
        """Rows `top` to `bottom` (not in it) and the first `width` columns, N x K x rows x width float32."""
        above, weight = self._above[top:bottom], self._weight[top:bottom].to(self.scores.device)
        first, last = int(above[0]), min(int(above[-1]) + 2, self.scores.shape[-2])
        rows = self.scores[..., first:last, :] if isinstance(self.scores, Tensor) else self.scores.rows(first, last)
        part = F.interpolate(rows, (last - first, self.full[1]), mode="bilinear", align_corners=False)
        part = part[..., :width]
        above = (above - first).to(part.device)
        below = (above + 1).clamp_max(last - first - 1)
        # Multiplied and added one by one, which rounds alike in every place; fused it would depend on the place in memory.
        return part.index_select(-2, above).mul_(1 - weight).add_(part.index_select(-2, below).mul_(weight))


@torch.inference_mode()
def raw_stripes(grid: Grid, size: tuple[int, int]) -> Iterator[Tensor]:
    """The scores K x r x w of the first image of `grid`, from the top to the last of the h x w of `size`."""
    for top, bottom in _stripes(grid, size):
        yield grid.rows(top, bottom, size[1])[0]


@torch.inference_mode()
def averaged_stripes(grids: list[Grid], size: tuple[int, int]) -> Iterator[Tensor]:
    """As `raw_stripes`, the log of the mean probability over grids and their images; a second image is a mirrored one."""
    for top, bottom in _stripes(grids[0], size):
        total, count = torch.zeros((), device=grids[0].scores.device), 0
        for grid in grids:
            for mirrored, scores in enumerate(grid.rows(top, bottom, size[1])):
                total = (scores.flip(-1) if mirrored else scores).softmax(0).add_(total)
                count += 1
        # A probability may be 0 in float32; its log must stay finite, so that cross entropy does.
        yield total.div_(count).clamp_min_(torch.finfo(torch.float32).tiny).log_()


def _stripes(grid: Grid, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    row = grid.scores.shape[1] * size[1]
    rows = max(LEAST_ROWS, STRIPE.get(grid.scores.device.type, ELSEWHERE) // row)
    for top in range(0, size[0], rows):
        yield top, min(size[0], top + rows)
