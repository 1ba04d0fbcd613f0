"""Networks that export within a second or two, for `--factory`."""

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """A convolution padded as in TensorFlow, and the paper's pooling: exports stumble over both."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        from timm.layers.conv2d_same import Conv2dSame

        torch.manual_seed(0)
        self.stem = Conv2dSame(3, 8, 3, stride=2)
        self.pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        self.head = nn.Conv2d(8, num_classes, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = 5 * self.head(self.pool(torch.relu(self.stem(images))))
        return scores


def small(num_classes: int) -> nn.Module:
    return Small(num_classes)


class Wide(nn.Module):
    """A stem and a 3x3 of many channels with a batch norm, which exports write as products."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 128, 3, stride=4, padding=1)
        self.wide = nn.Sequential(
            nn.Conv2d(128, 128, 3, padding=2, dilation=2, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
        )
        self.head = nn.Conv2d(128, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.wide(self.stem(images)))
        return scores


def wide(num_classes: int) -> nn.Module:
    return Wide(num_classes)


class Branching(nn.Module):
    """A network that branches by a value of the picture, which no trace can follow."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(images)
        return scores if float(images.sum()) > 0 else -scores


def branching(num_classes: int) -> nn.Module:
    return Branching(num_classes)
