"""Atrous spatial pyramid pooling as in DeepLabv2, the paper's baseline (Sec. 4.1.1, Table 1 a to d)."""

from collections.abc import Sequence

from torch import Tensor, nn


class ASPP(nn.Module):
    """Four plain 3x3 convolutions (bias, no norm) straight to class scores, summed: N x C x h x w -> N x K x h x w."""

    def __init__(self, in_channels: int, num_classes: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.rates = tuple(rates)
        self.branches = nn.ModuleList(nn.Conv2d(in_channels, num_classes, 3, padding=rate, dilation=rate) for rate in self.rates)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.branches
        scores: Tensor = first(x)
        for branch in others:
            scores = scores + branch(x)
        return scores
