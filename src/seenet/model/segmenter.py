"""The interface of every network to the trainer, the predictor, the model file and the summary."""

from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.core.errors import UsageError
from seenet.core.picture_reader import PLAIN, PictureReader


@dataclass(frozen=True)
class Window:
    """Place of a tile in a larger image.

    Attributes:
        origin: Row and column where the tile begins, multiples of 32.
        whole: Height and width of the image, padding included.
    """

    origin: tuple[int, int]
    whole: tuple[int, int]

    def resized(self, x: Tensor, stride: int, like: Tensor, to: int) -> Tensor:
        """Resize a tile's grid to the values that resizing the whole image's grid gives there.

        Bilinear, align_corners=False. At a side where the tile was cut, its border is repeated.

        Args:
            x: The tile's grid of stride `stride`, N x C x h x w.
            like: A tensor with the tile's height and width on the grid of stride `to`.
        """
        for axis in (2, 3):
            begin, side = self.origin[axis - 2], self.whole[axis - 2]
            points = torch.arange(
                begin // to, begin // to + like.shape[axis], dtype=torch.float64, device="cpu"
            )
            count, last = ceil(side / stride), x.shape[axis] - 1
            source = ((points + 0.5) * count / ceil(side / to) - 0.5).clamp(0, count - 1)
            source = (source - begin // stride).clamp(0, last)
            lower = source.long()
            upper = (lower + 1).clamp(max=last)
            weight = (source - lower).to(x.device, x.dtype).view((-1, 1) if axis == 2 else (-1,))
            x = torch.lerp(
                x.index_select(axis, lower.to(x.device)),
                x.index_select(axis, upper.to(x.device)),
                weight,
            )
        return x


def stride_of(grid: tuple[int, int], image: tuple[int, int]) -> int:
    """Return the stride of a grid on an image, a power of two up to 32; 0 where none fits."""
    strides = (1, 2, 4, 8, 16, 32)
    return next((s for s in strides if grid == tuple(ceil(side / s) for side in image)), 0)


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel / 255 that the backbone expects."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Segmenter(nn.Module):
    """Network from normalised images N x C x H x W to class scores N x K x h x w.

    A subclass defines `_features`, and sets `backbone`, `pad_multiple` and `auxiliary`.

    Attributes:
        options: The arguments of `create_model` that rebuild the network.
        normalization: Normalisation of the input images.
        reader: How files become input images; the model file keeps it.
        backbone: Part with its own learning rate, norms and stages.
        pad_multiple: Multiple that the sides of the input are padded to, by zeros to the right
            and below; the scores are cropped.
        auxiliary: Head on B3, or None.
    """

    # No default values: a class attribute would hide the module that a subclass sets.
    backbone: Any
    pad_multiple: int
    auxiliary: nn.Module | None

    def __init__(self, normalization: Normalization, options: dict[str, Any]) -> None:
        super().__init__()
        self.options, self.normalization = options, normalization
        self.reader: PictureReader = PLAIN
        self.num_classes: int = options["num_classes"]

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the named tensors of the pass, with `scores` on the head's own grid."""
        raise NotImplementedError

    def _scores(self, images: Tensor, window: Window | None = None) -> Tensor:
        """Return the scores on the head's own grid.

        A network that resizes features on the way overrides this and uses `window`.
        """
        return self._features(images)["scores"]

    def forward(
        self,
        images: Tensor,
        size: tuple[int, int] | None = None,
        *,
        own_grid: bool = False,
        window: Window | None = None,
    ) -> Tensor:
        """Return the class scores N x K x h x w of normalised images N x C x H x W.

        Args:
            size: h and w; by default H and W. The scores are resized once, from the head's own
                grid, bilinear, align_corners=False (docs/metrics.md).
            own_grid: Return the scores on the head's own grid. The caller resizes them to
                `full_size` and crops them to `size`.
            window: Place of the images in larger ones, if they are tiles: features are then
                resized as in a pass over the larger images.
        """
        scores = self._scores(images, window)
        return scores if own_grid else self.resize(scores, images, size)

    def forward_features(self, images: Tensor, *, own_grid: bool = False) -> dict[str, Tensor]:
        """Return the tensors of the pass by the paper's names, with their graph.

        Always: logits (at H x W). Of all but `model.factory`: B1 to B4 (a probe: those it needs).
        Where the variant has them: P2, P3, P4, P_out (before upsampling); attention (where P_out
        and B1 meet); auxiliary (the scores on B3, at H x W).

        Args:
            own_grid: Do not resize logits and auxiliary.
        """
        features = self._features(images)
        features["logits"] = features.pop("scores")
        if self.auxiliary is not None:
            features["auxiliary"] = self.auxiliary(features["B3"])
        if not own_grid:
            for name in {"logits", "auxiliary"} & features.keys():
                features[name] = self.resize(features[name], images)
        return features

    def resize(self, scores: Tensor, images: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Resize the scores of `images` from any grid to `size` (H x W) and crop the padding."""
        height, width = images.shape[-2:]
        multiple = self.pad_multiple
        if size is None:
            # `full_size` would do, but its division fixes the size of a traced network.
            size = height, width
            full = height + -height % multiple, width + -width % multiple
        else:
            full = full_size((height, width), size, multiple)
        scores = F.interpolate(scores, full, mode="bilinear", align_corners=False)
        return scores[..., : size[0], : size[1]]

    def _padded(self, images: Tensor) -> Tensor:
        if self.pad_multiple == 1:
            return images
        # No condition on the sides, so that a traced network pads at every size.
        below, right = (-side % self.pad_multiple for side in images.shape[-2:])
        return F.pad(images, (0, right, 0, below))

    def _check_batch_norm(self, images: Tensor, stride: int | None) -> None:
        """Raise UsageError where training would give batch norm a single point.

        Args:
            stride: Stride of the coarsest grid; None where batch norm sees one point per image.
        """
        count, _, height, width = images.shape
        points = count if stride is None else count * ceil(height / stride) * ceil(width / stride)
        if self.training and points == 1:
            crop = "" if stride is None else f", or a crop over {stride} pixels"
            raise UsageError(
                f"training {self.options['variant']} on one image of {height}x{width} pixels "
                "gives batch norm one point; "
                f"use a batch of at least 2 images a process and micro-batch{crop}"
            )


def full_size(image: tuple[int, int], size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return the size that the scores of a padded image are resized to.

    Cropped to `size`, the result holds the scores of the image alone: the padding is resized by
    the same factor.

    Args:
        image: Height and width before padding to `multiple`.
    """
    (height, width), (h, w) = image, size
    return (
        ceil(h * (height + -height % multiple) / height),
        ceil(w * (width + -width % multiple) / width),
    )
