"""The interface of a network to trainer, predictor, model file and summary, whoever designed it."""

from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Window:
    """A tile of a picture of `whole` = (height, width), padded sides included.

    It begins at row and column `origin`, multiples of 32.
    """

    origin: tuple[int, int]
    whole: tuple[int, int]

    def resized(self, x: Tensor, stride: int, like: Tensor, to: int) -> Tensor:
        """Resize a tile's grid as the whole picture's grid would be: its part of that.

        Bilinear, align_corners=False. Near a cut side the tile's own border stands in.

        Args:
            x: N x C x h x w, the tile's grid of this `stride`.
            like: Of the size that the tile has on the grid of stride `to`.
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
    """Return the stride of a grid on an image, from 1 to 32 in powers of two; 0 where none fits."""
    fits = (stride for stride in (1, 2, 4, 8, 16, 32) if grid == tuple(ceil(side / stride) for side in image))
    return next(fits, 0)


@dataclass(frozen=True)
class Normalization:
    """Mean and deviation of RGB / 255 that the backbone expects."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Segmenter(nn.Module):
    """Map normalised images N x C x H x W to class scores N x K x h x w; children define `_features`.

    Attributes:
        options: What rebuilds it.
        normalization: What images must be normalised with.
        backbone: The part with the backbone's learning rate, norms and stages.
        pad_multiple: What the sides of an image must divide by inside: zeros are added to the right
            and below, and cut off again.
    """

    backbone: Any
    pad_multiple: int
    auxiliary: nn.Module | None
    """A head on B3. (No default here: a class attribute would hide the module that a child sets.)"""

    def __init__(self, normalization: Normalization, options: dict[str, Any]) -> None:
        super().__init__()
        self.options, self.normalization = options, normalization
        self.num_classes: int = options["num_classes"]

    def _features(self, images: Tensor, window: Window | None = None) -> dict[str, Tensor]:
        """Return the named tensors of the pass, `scores` on the head's own grid among them."""
        raise NotImplementedError

    def _scores(self, images: Tensor, window: Window | None = None) -> Tensor:
        """Return the scores alone; a faster form need not have the other tensors."""
        return self._features(images, window)["scores"]

    def forward(
        self, images: Tensor, size: tuple[int, int] | None = None, *, own_grid: bool = False, window: Window | None = None
    ) -> Tensor:
        """Return class scores N x K x h x w of normalised images N x C x H x W.

        Args:
            size: h and w; H and W if left out. Scores are resized once, from the head's own grid,
                bilinear, align_corners=False (docs/metrics.md).
            own_grid: Do not resize, for who resizes to `full_size` and cuts them to size.
            window: The images are this tile of larger ones; what is resized on the way is then
                resized as in the whole ones.
        """
        scores = self._scores(images, window)
        return scores if own_grid else self.resize(scores, images, size)

    def forward_features(self, images: Tensor, *, own_grid: bool = False) -> dict[str, Tensor]:
        """Return the tensors of the pass by the paper's names, with their graph.

        logits (at H x W) always; B1 to B4 (of a probe those it needs) but for a network of
        `model.factory`; P2, P3, P4, P_out where the variant has them (P_out before upsampling);
        attention (where P and B1 meet) for `seenet`; auxiliary (scores at H x W) where that head
        was built. With `own_grid` logits and auxiliary are not resized.
        """
        features = self._features(images)
        features["logits"] = features.pop("scores")
        if self.auxiliary is not None:
            features["auxiliary"] = self.auxiliary(features["B3"])
        if not own_grid:
            for name in {"logits", "auxiliary"} & features.keys():
                features[name] = self.resize(features[name], images)
        return features

    def _padded(self, images: Tensor) -> Tensor:
        if self.pad_multiple == 1:
            return images
        # Asks nothing of the sides, so that a traced network pads at every size.
        below, right = (-side % self.pad_multiple for side in images.shape[-2:])
        return F.pad(images, (0, right, 0, below))

    def resize(self, scores: Tensor, images: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Resize scores of `images`, N x K on any grid, to `size` or H x W, and cut the padding off."""
        height, width = images.shape[-2:]
        multiple = self.pad_multiple
        # Apart from `full_size`, for a traced network: nothing is asked of the sides.
        if size is None:
            return F.interpolate(scores, (height + -height % multiple, width + -width % multiple), mode="bilinear", align_corners=False)[
                ..., :height, :width
            ]
        h, w = size
        full = full_size((height, width), size, multiple)
        return F.interpolate(scores, full, mode="bilinear", align_corners=False)[..., :h, :w]


def full_size(image: tuple[int, int], size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return the size to resize a grid to that also covers padding up to a `multiple`.

    Cut to `size`, it holds the scores of the image (height, width) alone: padding is resized by the
    same factor.
    """
    (height, width), (h, w) = image, size
    return ceil(h * (height + -height % multiple) / height), ceil(w * (width + -width % multiple) / width)
