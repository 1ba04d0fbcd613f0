"""Semantic enhancement modules (Sec. 3.2, Fig. 4a and 4b)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seenet.model.depthwise import DepthwiseConv2d


class ConvUnit(nn.Sequential):
    """Convolution without bias, batch norm, ReLU (Sec. 3.2); "same" padding, so that the grid stays."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, *, dilation: int = 1, groups: int = 1) -> None:
        super().__init__(
            _convolution(groups)(
                in_channels,
                out_channels,
                kernel,
                padding=dilation * (kernel // 2),
                dilation=dilation,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )
        self.out_channels = out_channels


def _convolution(groups: int) -> type[nn.Conv2d]:
    return nn.Conv2d if groups == 1 else DepthwiseConv2d


def local_size(rate: int) -> int:
    """r_i: the smallest odd number >= dr_i, so that no input point between the dilated taps is missed (Eq. 2)."""
    return rate if rate % 2 else rate + 1


class LocalConv(nn.Module):
    """r x r convolution as the sum of the pairs {r x 1, 1 x r} and {1 x r, r x 1}; batch norm and ReLU after the sum (Fig. 4b).

    N x C x h x w -> N x C x h x w. `depthwise` gives every channel its own pairs.
    """

    def __init__(self, channels: int, size: int, *, depthwise: bool = False) -> None:
        super().__init__()
        groups = channels if depthwise else 1

        def line(kernel: tuple[int, int]) -> nn.Conv2d:
            padding = (kernel[0] // 2, kernel[1] // 2)
            return _convolution(groups)(channels, channels, kernel, padding=padding, groups=groups, bias=False)

        self.column_row = nn.Sequential(line((size, 1)), line((1, size)))
        self.row_column = nn.Sequential(line((1, size)), line((size, 1)))
        self.norm = nn.BatchNorm2d(channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm(self.column_row(x) + self.row_column(x)))
        return out


class SeEM(nn.Module):
    """Semantic enhancement module (Fig. 4a): four depthwise atrous branches, concatenated behind their input.

    N x C x h x w -> N x (C + 4 width) x h x w. A branch is 1x1 (C -> width), depthwise 3x3 with dilation dr_i, 1x1.
    """

    def __init__(self, in_channels: int, rates: Sequence[int], width: int = 128) -> None:
        super().__init__()
        self.rates = tuple(rates)
        self.out_channels = in_channels + len(self.rates) * width
        self.branches = nn.ModuleList(
            nn.Sequential(
                ConvUnit(in_channels, width),
                *self._local(rate, width),
                ConvUnit(width, width, 3, dilation=rate, groups=width),
                ConvUnit(width, width),
            )
            for rate in self.rates
        )

    def _local(self, rate: int, width: int) -> tuple[nn.Module, ...]:
        return ()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, *(branch(x) for branch in self.branches)], dim=1)


class SeEMFS(SeEM):
    """SeEM with full sampling (Fig. 4b, Fig. 5): a local r_i x r_i convolution before the atrous one.

    With r_i >= dr_i every input point in the window of the dilated kernel reaches the output (Eq. 2); a rate of 1 needs none.
    """

    def __init__(self, in_channels: int, rates: Sequence[int], width: int = 128, *, local_conv: str = "full") -> None:
        self._depthwise = local_conv == "depthwise"
        super().__init__(in_channels, rates, width)

    def _local(self, rate: int, width: int) -> tuple[nn.Module, ...]:
        return (LocalConv(width, local_size(rate), depthwise=self._depthwise),) if rate > 1 else ()
