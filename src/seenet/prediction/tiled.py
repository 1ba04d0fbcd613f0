"""Scores of pictures that are seen tile by tile: on the head's own grid, so that they are resized as a whole pass is."""

from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seenet.core.errors import UsageError
from seenet.model.segmenter import Window, stride_of
from seenet.prediction.tiles import Span, Tiling

ROWS = 64
"""Rows of a resized picture that are made at once."""


class TiledGrid:
    """What the head would give of a whole picture, N x K x h x w, made row of tiles by row of tiles as its rows are asked for.

    Args:
        run: (rows, columns, window) -> the scores on the head's own grid of that tile of the picture.
        size: height and width of the picture as the network sees it.
        multiple: what the network pads the picture's sides to.

    Rows must be asked for from the top to the bottom: what lies above them is forgotten. UsageError for a network whose grid has no
    stride that is a power of two up to 32.
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
        """Rows `first` to `last` (not in it) of the grid, N x K x rows x w float32."""
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
        """Of the grid, for a span's end: the picture's own end takes the padding with it."""
        spans = self.bands if axis == 0 else self.columns
        return ceil((self.whole[axis] if last == spans[-1].last else last) / self.stride)


def scaled_part(picture: Any, size: tuple[int, int], rows: Span, columns: Span, normalized: Callable[[np.ndarray], Tensor]) -> Tensor:
    """The rows and columns that a tile sees of an H x W x C picture resized to `size`, 1 x C x h x w, as `predictor.resized` resizes it.

    Bilinear, antialiased when shrinking; no more of the picture is read than that takes.
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
    """Weighted sums along the columns."""
    return F.linear(pixels, weights.to(pixels.device))
