"""Small networks for tests: as SeENet is called, but quick and with answers one can work out."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.core.labels import LabelSet, voc_colours
from seenet.model.segmenter import Window

LABELS = LabelSet("toy", ("sky", "road", "tree"), voc_colours(3))


class TinyNet(nn.Module):
    """One strided convolution and batch norm; scores on a grid of stride 4, resized once."""

    def __init__(self, num_classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.normalization = SimpleNamespace(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
        self.num_classes, self.pad_multiple = num_classes, 1
        self.conv = nn.Conv2d(3, num_classes, 5, stride=4, padding=2)
        self.norm = nn.BatchNorm2d(num_classes)

    def forward(
        self, images: Tensor, size: tuple[int, int] | None = None, *, own_grid: bool = False, window: Window | None = None
    ) -> Tensor:
        scores = 3 * self.norm(self.conv(images))
        return scores if own_grid else F.interpolate(scores, size or images.shape[-2:], mode="bilinear", align_corners=False)


class RedNet(nn.Module):
    """Class of a pixel by its red value: below 85 is 0, below 170 is 1, else 2; exact, so that files can be worked out
    by hand.
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalization = SimpleNamespace(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.num_classes, self.pad_multiple = 3, 1
        self.calls = 0

    def forward(
        self, images: Tensor, size: tuple[int, int] | None = None, *, own_grid: bool = False, window: Window | None = None
    ) -> Tensor:
        self.calls += 1
        red = images[:, :1] * 255
        scores = torch.cat([-(red - centre).abs() for centre in (42.0, 127.5, 213.0)], 1)
        return scores if own_grid else F.interpolate(scores, size or images.shape[-2:], mode="bilinear", align_corners=False)
