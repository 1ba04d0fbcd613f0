"""Scores of large pictures in parts: tiles, and rows at the picture's size.

`TiledGrid` makes the head's grid of scores tile by tile. `Grid` resizes such a grid, or that of a
whole pass, to the picture's size, some rows at a time: all scores would take 4 K bytes a pixel, and
a few rows stay in the cache. `pass_bytes` estimates the memory of a pass, which decides the tiles.
"""

import copy
from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from seenet.core.errors import UsageError
from seenet.model.segmenter import Window, stride_of
from seenet.prediction.tiles import Span, Tiling

ROWS = 64
"""Rows of a resized picture that are computed at once."""
CHUNK = {"cpu": 2**19}
"""Numbers in a row chunk, by device."""
CHUNK_ELSEWHERE = 2**25
"""Numbers on other devices, where an operation costs more to start than to compute."""
MIN_CHUNK_ROWS = 8
"""Rows of a chunk, however many classes there are: the grid's rows at its borders are resized
twice.
"""
MEASURED_SIDE = 512
"""Side of the picture of `pass_bytes`, in pixels."""
UNKNOWN_BYTES = 1600.0
"""Bytes a pixel, somewhat more than this project's networks on ResNet-50 and 101 take."""
OVERHEAD = 1.25
"""Factor for what convolutions reorder and pad internally: assumed, not measured."""


class TiledGrid:
    """Scores of a whole picture on the head's own grid, N x K x h x w, made one row of tiles at a
    time.

    Rows must be read from the top to the bottom: those above the last ones read are dropped.

    Args:
        run: (rows, columns, window) -> the scores of that tile on the head's own grid.
        size: Height and width of the picture as the network sees it.
        side: Side of the tiles.
        multiple: The network pads the picture's sides to a multiple of this.

    Raises:
        UsageError: The stride of the network's grid is not a power of two up to 32.
    """

    def __init__(
        self,
        run: Callable[[Span, Span, Window], Tensor],
        size: tuple[int, int],
        tiling: Tiling,
        side: int,
        multiple: int,
    ) -> None:
        self.run, self.multiple = run, multiple
        self.whole = self._padded(*size)
        self.bands, self.columns = tiling.spans(size[0], side), tiling.spans(size[1], side)
        self.stride = 0
        first = self._band(self.bands[0])
        self.cached_bands = {0: first}
        self.device = first.device
        self.shape = (*first.shape[:2], ceil(self.whole[0] / self.stride), first.shape[3])

    def rows(self, first: int, last: int) -> Tensor:
        """Return the grid's rows `first` to `last` (exclusive), N x K x rows x w float32."""
        parts = []
        for number, span in enumerate(self.bands):
            top, bottom = span.first // self.stride, self._grid_end(span.last, 0)
            if bottom <= first:
                self.cached_bands.pop(number, None)
            elif top < last:
                if number not in self.cached_bands:
                    self.cached_bands[number] = self._band(span)
                parts.append(self.cached_bands[number][..., max(first - top, 0) : last - top, :])
        return parts[0] if len(parts) == 1 else torch.cat(parts, -2)

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        return height + -height % self.multiple, width + -width % self.multiple

    def _band(self, rows: Span) -> Tensor:
        """Return the scores of one row of tiles, without their margins."""
        band = None
        for columns in self.columns:
            window = Window((rows.begin, columns.begin), self.whole)
            scores = self.run(rows, columns, window).float()
            grid = (scores.shape[2], scores.shape[3])
            if not self.stride:
                seen = (rows.end - rows.begin, columns.end - columns.begin)
                self.stride = stride_of(grid, self._padded(*seen))
                if not self.stride:
                    raise UsageError(
                        f"tiles: the network returns a grid of {grid[0]}x{grid[1]} points for "
                        f"{seen[0]}x{seen[1]} pixels, expected a stride of 1, 2, 4, 8, 16 or 32; "
                        "use --tile whole"
                    )
            top, left = rows.first // self.stride, columns.first // self.stride
            bottom, right = self._grid_end(rows.last, 0), self._grid_end(columns.last, 1)
            if band is None:
                band = scores.new_empty(
                    (*scores.shape[:2], bottom - top, ceil(self.whole[1] / self.stride))
                )
            above, before = rows.begin // self.stride, columns.begin // self.stride
            band[..., left:right] = scores[
                ..., top - above : bottom - above, left - before : right - before
            ]
        assert band is not None
        return band

    def _grid_end(self, last: int, axis: int) -> int:
        """Return the grid's row or column at a span's end; the last span includes the padding."""
        spans = self.bands if axis == 0 else self.columns
        return ceil((self.whole[axis] if last == spans[-1].last else last) / self.stride)


def scaled_part(
    picture: Any,
    size: tuple[int, int],
    rows: Span,
    columns: Span,
    normalized: Callable[[np.ndarray], Tensor],
) -> Tensor:
    """Resize the part of a picture that a tile sees, with the same values as `predictor.resized`.

    Bilinear, antialiased when shrinking. Only the pixels that this takes are read.

    Args:
        picture: Sliced by [rows, columns]: an array, or a `RasterPicture`.
        size: Height and width of the whole resized picture.
        rows, columns: The tile in the resized picture.
        normalized: Maps h x w x C uint8 to 1 x C x h x w.

    Returns:
        1 x C x h x w.
    """
    slices, weights = [], []
    for length, out, span in zip(picture.shape, size, (rows, columns), strict=False):
        source, weight = _interpolation(length, out, span)
        slices.append(source)
        weights.append(weight)
    (vertical, horizontal), begin = weights, slices[0].start

    def part(first: int, last: int) -> Tensor:
        """Return these rows of the picture, its columns resized."""
        pixels = normalized(np.ascontiguousarray(picture[first:last, slices[1]]))
        return pixels if horizontal is None else _weighted_sum(pixels, horizontal)

    if vertical is None:
        return part(begin, slices[0].stop).contiguous(memory_format=torch.channels_last)
    parts = []
    for top in range(0, len(vertical), ROWS):
        block = vertical[top : top + ROWS]
        used = block.any(0).nonzero()
        first, last = int(used[0]), int(used[-1]) + 1
        rows_used = part(begin + first, begin + last).transpose(2, 3)
        parts.append(_weighted_sum(rows_used, block[:, first:last]).transpose(2, 3))
    return torch.cat(parts, 2).contiguous(memory_format=torch.channels_last)


def _interpolation(length: int, out: int, span: Span) -> tuple[slice, Tensor | None]:
    """Return the pixels of an axis that a span of the resized axis is made of, and their weights.

    The weights are out x in; None where the axis keeps its length.
    """
    if length == out:
        return slice(span.begin, span.end), None
    support = max(1.0, length / out)
    centres = (torch.arange(span.begin, span.end, dtype=torch.float64) + 0.5) * length / out - 0.5
    if support == 1:
        centres = centres.clamp(0, length - 1)
    begin, end = max(0, int(centres[0] - support)), min(length, int(centres[-1] + support) + 2)
    hat = (1 - (torch.arange(begin, end) - centres[:, None]).abs() / support).clamp_min(0)
    return slice(begin, end), (hat / hat.sum(1, keepdim=True)).float()


def _weighted_sum(pixels: Tensor, weights: Tensor) -> Tensor:
    """Return weighted sums along the columns."""
    return F.linear(pixels, weights.to(pixels.device))


class Grid:
    """Scores N x K x h x w on the head's own grid, resized to `full` by rows: bilinear,
    align_corners=False.

    A row does not depend on the chunk that it is read in. It differs from that of `F.interpolate`
    by rounding.
    """

    def __init__(self, scores: Tensor | TiledGrid, full: tuple[int, int]) -> None:
        self.scores = scores.float().contiguous() if isinstance(scores, Tensor) else scores
        self.full = full
        height = scores.shape[-2]
        # As torch computes it: the factor in float32, then one rounding.
        factor = (torch.tensor(float(height), dtype=torch.float32) / full[0]).double()
        places = ((torch.arange(full[0]).double() + 0.5) * factor - 0.5).float().clamp_min(0)
        self._above = places.long().clamp_max(height - 1)
        self._weight = (places - self._above)[:, None]

    def rows(self, top: int, bottom: int, width: int) -> Tensor:
        """Return rows `top` to `bottom` (exclusive) of the first `width` columns.

        Returns:
            N x K x rows x width float32.
        """
        above, weight = self._above[top:bottom], self._weight[top:bottom].to(self.scores.device)
        first, last = int(above[0]), min(int(above[-1]) + 2, self.scores.shape[-2])
        rows = (
            self.scores[..., first:last, :]
            if isinstance(self.scores, Tensor)
            else self.scores.rows(first, last)
        )
        wide = F.interpolate(
            rows, (last - first, self.full[1]), mode="bilinear", align_corners=False
        )[..., :width]
        above = (above - first).to(wide.device)
        below = (above + 1).clamp_max(last - first - 1)
        # Multiplied and added one by one, which always rounds alike; fused operations would round
        # by the place in memory.
        return (
            wide.index_select(-2, above)
            .mul_(1 - weight)
            .add_(wide.index_select(-2, below).mul_(weight))
        )


@torch.inference_mode()
def raw_row_chunks(grid: Grid, size: tuple[int, int]) -> Iterator[Tensor]:
    """Yield the logits K x r x w of the first image of `grid`, cut to `size`, from the top."""
    for top, bottom in _row_ranges(grid, size):
        yield grid.rows(top, bottom, size[1])[0]


@torch.inference_mode()
def averaged_row_chunks(grids: list[Grid], size: tuple[int, int]) -> Iterator[Tensor]:
    """Yield the log of the mean probability over grids and their images, K x r x w.

    The second image of a grid is mirrored.
    """
    for top, bottom in _row_ranges(grids[0], size):
        total, count = torch.zeros((), device=grids[0].scores.device), 0
        for grid in grids:
            for mirrored, scores in enumerate(grid.rows(top, bottom, size[1])):
                total = (scores.flip(-1) if mirrored else scores).softmax(0).add_(total)
                count += 1
        # A probability may be 0 in float32; its log must be finite for the cross entropy.
        yield total.div_(count).clamp_min_(torch.finfo(torch.float32).tiny).log_()


def _row_ranges(grid: Grid, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    numbers_per_row = grid.scores.shape[1] * size[1]
    chunk = CHUNK.get(grid.scores.device.type, CHUNK_ELSEWHERE)
    rows = max(MIN_CHUNK_ROWS, chunk // numbers_per_row)
    for top in range(0, size[0], rows):
        yield top, min(size[0], top + rows)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counter of the bytes of all tensors that are alive; `peak` is the largest count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: Any = WeakIdKeyDictionary()
        self.peak = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage] = storage.nbytes()
        self.peak = max(self.peak, sum(self.storages.values()))
        return out


def pass_bytes(model: nn.Module, channels: int) -> float:
    """Estimate the memory of a float32 pass over one picture, in bytes a pixel, without weights.

    The tensors that are alive at once in a pass over 512 x 512 pixels are counted on torch's meta
    device, which computes nothing, and multiplied by `OVERHEAD`. So the estimate, and with it the
    tiles, are the same on every machine.

    Returns:
        Bytes a pixel; `UNKNOWN_BYTES` for a network that cannot run on the meta device.
    """
    twin = copy.deepcopy(model).to("meta", torch.float32).eval()
    shape = (1, channels, MEASURED_SIDE, MEASURED_SIDE)
    try:
        with torch.inference_mode(), _LiveBytes() as live:
            twin(torch.zeros(shape, device="meta", dtype=torch.float32), own_grid=True)
    except Exception:  # of a network of the user's own, which may need real numbers
        return UNKNOWN_BYTES
    return float(live.peak / MEASURED_SIDE**2 * OVERHEAD)
