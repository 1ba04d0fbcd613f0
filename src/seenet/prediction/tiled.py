"""Scores of large pictures in parts: tiles, and rows at the picture's size; the memory of a pass.

`TiledGrid` makes the grid of scores tile by tile; it is resized as a whole pass's grid is, so both
give the same scores. At the picture's size all scores would take 4 K bytes a pixel, while some rows
of them stay in the cache: `Grid`, `raw_row_chunks`, `averaged_row_chunks`. `pass_bytes` estimates
the memory of a pass, by which tiles are chosen.
"""

import copy
from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from seenet.core.errors import UsageError
from seenet.model.window import Window, stride_of
from seenet.prediction.tiles import Span, Tiling

ROWS = 64
"""Rows of a resized picture that are made at once."""
CHUNK = {"cpu": 2**19}
"""Numbers in a row chunk, by device."""
ELSEWHERE = 2**25
"""Numbers on other devices, where an operation costs more to start than to compute."""
LEAST_ROWS = 8
"""Of a chunk, however many classes there are: rows of the grid at its borders are resized twice."""
MEASURED_SIDE = 512
"""Pixels a side of the picture of `pass_bytes`."""
UNKNOWN_BYTES = 1600.0
"""A pixel: somewhat more than this project's networks on ResNet-50 and 101 take."""
OVERHEAD = 1.25
"""For what convolutions reorder and pad for themselves: assumed, not measured."""


class TiledGrid:
    """Scores of a whole picture on the head's own grid, N x K x h x w, made row of tiles by row.

    Args:
        run: (rows, columns, window) -> the scores on the head's own grid of that tile of the
            picture.
        size: height and width of the picture as the network sees it.
        multiple: what the network pads the picture's sides to.

    Rows must be asked for from the top to the bottom: what lies above them is forgotten.

    Raises:
        UsageError: the stride of the network's grid is no power of two up to 32.
    """

    def __init__(
        self, run: Callable[[Span, Span, Window], Tensor], size: tuple[int, int], tiling: Tiling, side: int, multiple: int
    ) -> None:
        self.run, self.whole = run, (size[0] + -size[0] % multiple, size[1] + -size[1] % multiple)
        self.multiple = multiple
        self.bands, self.columns = tiling.spans(size[0], side), tiling.spans(size[1], side)
        self.stride = 0
        first = self._band(self.bands[0])
        self.made = {0: first}
        self.device = first.device
        self.shape = (*first.shape[:2], ceil(self.whole[0] / self.stride), first.shape[3])

    def rows(self, first: int, last: int) -> Tensor:
        """Return rows `first` to `last` (not in it) of the grid, N x K x rows x w float32."""
        parts = []
        for number, span in enumerate(self.bands):
            top, bottom = span.first // self.stride, self._end(span.last, 0)
            if bottom <= first:
                self.made.pop(number, None)
            elif top < last:
                if number not in self.made:
                    self.made[number] = self._band(span)
                parts.append(self.made[number][..., max(first - top, 0) : last - top, :])
        return parts[0] if len(parts) == 1 else torch.cat(parts, -2)

    def _band(self, rows: Span) -> Tensor:
        band = None
        for columns in self.columns:
            scores = self.run(rows, columns, Window((rows.begin, columns.begin), self.whole)).float()
            if not self.stride:
                seen = (rows.end - rows.begin, columns.end - columns.begin)
                padded = (seen[0] + -seen[0] % self.multiple, seen[1] + -seen[1] % self.multiple)
                self.stride = stride_of((scores.shape[2], scores.shape[3]), padded)
                if not self.stride:
                    raise UsageError(
                        f"tiles: the network gives a grid of {scores.shape[2]}x{scores.shape[3]} points for {seen[0]}x{seen[1]} pixels, "
                        "expected a stride of 1, 2, 4, 8, 16 or 32; use --tile whole"
                    )
            top, left = rows.first // self.stride, columns.first // self.stride
            bottom, right = self._end(rows.last, 0), self._end(columns.last, 1)
            if band is None:
                band = scores.new_empty((*scores.shape[:2], bottom - top, ceil(self.whole[1] / self.stride)))
            above, before = rows.begin // self.stride, columns.begin // self.stride
            band[..., left:right] = scores[..., top - above : bottom - above, left - before : right - before]
        assert band is not None
        return band

    def _end(self, last: int, axis: int) -> int:
        """Return the row or column of the grid at a span's end; the picture's own end takes the
        padding with it.
        """
        spans = self.bands if axis == 0 else self.columns
        return ceil((self.whole[axis] if last == spans[-1].last else last) / self.stride)


def scaled_part(picture: Any, size: tuple[int, int], rows: Span, columns: Span, normalized: Callable[[np.ndarray], Tensor]) -> Tensor:
    """Resize the part of a picture that a tile sees, as `predictor.resized` resizes the whole.

    Bilinear, antialiased when shrinking. No more of the picture is read than that takes.

    Args:
        picture: sliced by [rows, columns]; an array, or a `RasterPicture`.
        size: height and width of the whole resized picture.
        rows, columns: of the resized picture.
        normalized: makes 1 x C x h x w of h x w x C.

    Returns:
        1 x C x h x w.
    """
    spans, sources = (rows, columns), []
    weights: list[Tensor | None] = []
    for axis in (0, 1):
        length, out, span = picture.shape[axis], size[axis], spans[axis]
        if length == out:
            sources.append(slice(span.begin, span.end))
            weights.append(None)
            continue
        support = max(1.0, length / out)
        where = (torch.arange(span.begin, span.end, dtype=torch.float64) + 0.5) * length / out - 0.5
        if support == 1:
            where = where.clamp(0, length - 1)
        begin, end = max(0, int(where[0] - support)), min(length, int(where[-1] + support) + 2)
        hat = (1 - (torch.arange(begin, end) - where[:, None]).abs() / support).clamp_min(0)
        sources.append(slice(begin, end))
        weights.append((hat / hat.sum(1, keepdim=True)).float())
    if weights[0] is None:
        pixels = normalized(np.ascontiguousarray(picture[sources[0], sources[1]]))
        return (pixels if weights[1] is None else _along(pixels, weights[1])).contiguous(memory_format=torch.channels_last)
    parts = []
    for top in range(0, len(weights[0]), ROWS):
        part = weights[0][top : top + ROWS]
        used = part.any(0).nonzero()
        first, last = int(used[0]), int(used[-1]) + 1
        begin = sources[0].start
        pixels = normalized(np.ascontiguousarray(picture[begin + first : begin + last, sources[1]]))
        if weights[1] is not None:
            pixels = _along(pixels, weights[1])
        parts.append(_along(pixels.transpose(2, 3), part[:, first:last]).transpose(2, 3))
    return torch.cat(parts, 2).contiguous(memory_format=torch.channels_last)


def _along(pixels: Tensor, weights: Tensor) -> Tensor:
    """Return weighted sums along the columns."""
    return F.linear(pixels, weights.to(pixels.device))


class Grid:
    """Scores N x K x h x w on the head's own grid, resized to `full` by rows: bilinear,
    align_corners=False.

    Rows do not depend on the chunk that they are asked for in. They differ from `F.interpolate`'s
    by rounding.
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
        """Return rows `top` to `bottom` (not in it) of the first `width` columns, N x K x rows x
        width float32.
        """
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
def raw_row_chunks(grid: Grid, size: tuple[int, int]) -> Iterator[Tensor]:
    """Yield the scores K x r x w of the first image of `grid`, from the top, up to the h x w of
    `size`.
    """
    for top, bottom in _row_ranges(grid, size):
        yield grid.rows(top, bottom, size[1])[0]


@torch.inference_mode()
def averaged_row_chunks(grids: list[Grid], size: tuple[int, int]) -> Iterator[Tensor]:
    """Yield the log of the mean probability over grids and their images; a second image is a
    mirrored one.
    """
    for top, bottom in _row_ranges(grids[0], size):
        total, count = torch.zeros((), device=grids[0].scores.device), 0
        for grid in grids:
            for mirrored, scores in enumerate(grid.rows(top, bottom, size[1])):
                total = (scores.flip(-1) if mirrored else scores).softmax(0).add_(total)
                count += 1
        # A probability may be 0 in float32; its log must stay finite, so that cross entropy does.
        yield total.div_(count).clamp_min_(torch.finfo(torch.float32).tiny).log_()


def _row_ranges(grid: Grid, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    row = grid.scores.shape[1] * size[1]
    rows = max(LEAST_ROWS, CHUNK.get(grid.scores.device.type, ELSEWHERE) // row)
    for top in range(0, size[0], rows):
        yield top, min(size[0], top + rows)


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the bytes of all tensors that live at once, and keep the largest count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.living: dict[int, tuple[Any, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.living[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        self.living = {key: (reference, size) for key, (reference, size) in self.living.items() if not reference.expired()}
        self.most = max(self.most, sum(size for _, size in self.living.values()))
        return out


def pass_bytes(model: nn.Module, channels: int) -> float:
    """Estimate the bytes a pixel that a network in eval mode takes for one picture in float32,
    besides its weights.

    Counted are the tensors that live at once in a pass over 512 x 512 pixels on torch's meta
    device, which computes nothing, times `OVERHEAD`. The estimate is the same on every machine, so
    that tiles are too.

    Returns:
        Bytes; `UNKNOWN_BYTES` for a network that cannot run on the meta device.
    """
    twin = copy.deepcopy(model).to("meta", torch.float32).eval()
    try:
        with torch.inference_mode(), _Living() as living:
            twin(torch.zeros(1, channels, MEASURED_SIDE, MEASURED_SIDE, device="meta", dtype=torch.float32), own_grid=True)
    except Exception:  # of a network of the user's own, which may need real numbers
        return UNKNOWN_BYTES
    return float(living.most / MEASURED_SIDE**2 * OVERHEAD)
