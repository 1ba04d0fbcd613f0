"""What trainer, predictor, model file and summary ask of a network, whoever designed it."""

from dataclasses import dataclass
from math import ceil
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from seenet.model.window import Window


@dataclass(frozen=True)
class Normalization:
    """Mean and deviation of RGB / 255 that the backbone expects."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Segmenter(nn.Module):
    """Normalised images N x C x H x W -> class scores N x K x h x w; children say in `_features` how.

    `options` rebuilds it; `normalization` is what images must be normalised with; `backbone` is the part with the backbone's rate, norms
    and stages; `pad_multiple` is what the sides of an image must divide by inside (zeros to the right and below, cut off again).
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
        """The named tensors of the pass, `scores` on the head's own grid among them, of images or of images padded by `_padded`."""
        raise NotImplementedError

    def _scores(self, images: Tensor, window: Window | None = None) -> Tensor:
        """The class scores of the pass on the head's own grid; a faster form need not have the other tensors."""
        return self._features(images, window)["scores"]

    def forward(
        self, images: Tensor, size: tuple[int, int] | None = None, *, own_grid: bool = False, window: Window | None = None
    ) -> Tensor:
        """Class scores N x K x h x w of normalised images N x C x H x W, at `size` or H x W.

        Resized once, from the head's own grid, bilinear, align_corners=False (docs/metrics.md). `own_grid`: not resized, for who resizes
        them to `full_size` and cuts them to size. `window`: the images are this tile of larger ones; what is resized on the way is then
        resized as in the whole ones.
        """
        scores = self._scores(images, window)
        return scores if own_grid else self.resize(scores, images, size)

    def forward_features(self, images: Tensor, *, own_grid: bool = False) -> dict[str, Tensor]:
        """The tensors of the pass by the paper's names, with their graph.

        logits (at H x W) always; B1 to B4 (of a probe those it needs) but for a network of `model.factory`; P2, P3, P4, P_out where the
        variant has them (P_out before upsampling); attention (where P and B1 meet) for `seenet`; auxiliary (scores at H x W) where that
        head was built. With `own_grid` the last and the first are not resized, for who does it.
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
        """What the network gives of `images` on any grid of its own, N x C x h x w, at `size` or H x W: bilinear, align_corners=False."""
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
    """What the grid of an image padded to a `multiple` is resized to, before the padding is cut off, for scores at `size`.

    The grid covers the padding too: it is resized by the same factor.
    """
    (height, width), (h, w) = image, size
    return ceil(h * (height + -height % multiple) / height), ceil(w * (width + -width % multiple) / width)
