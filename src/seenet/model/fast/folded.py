"""SeENet's own modules folded: what no trace of a graph finds, since a sum or a list of tensors stands between convolution and norm."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seenet.model.fast.convolution import FoldedConv
from seenet.model.fast.folding import scale_and_shift
from seenet.model.fast.parts import Parts
from seenet.model.seem import LocalConv


class FoldedLocal(nn.Module):
    """`LocalConv` in eval mode: norm and ReLU of the sum are in the line that comes last."""

    def __init__(self, local: LocalConv) -> None:
        super().__init__()
        pairs: Any = (local.column_row, local.row_column)
        self.first, self.second = (nn.ModuleList(FoldedConv(line) for line in pair) for pair in pairs)
        factor, shift = scale_and_shift(local.norm)
        last: Any = self.second[1]
        last.scale(factor, shift)
        last.activation, last.overwrites = nn.ReLU(inplace=True), True
        other: Any = self.first[1]
        other.scale(factor)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second[1](self.second[0](x), self.first[1](self.first[0](x)))
        return out


class FoldedParts(nn.Module):
    """A folded 1x1 unit of a concatenation: one convolution for each part, added to what those before gave."""

    def __init__(self, conv: FoldedConv, channels: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for number, weight in enumerate(torch.split(conv.weight, list(channels), dim=1)):
            one = copy.copy(conv)
            # A copy shares its dictionaries with the original otherwise.
            one._buffers = {"weight": weight.contiguous(), "bias": conv.bias if number == 0 else None}
            one._modules = {"activation": conv.activation if number == len(channels) - 1 else None}
            one.overwrites = number > 0
            self.convs.append(one)

    def forward(self, parts: Parts) -> Tensor:
        total: Tensor = self.convs[0](parts[0])
        for conv, part in zip(self.convs[1:], parts[1:], strict=True):
            total = conv(part, total)
        return total


def fold_locals(module: nn.Module) -> None:
    """Put a `FoldedLocal` in the place of every `LocalConv` within."""
    for name, child in module.named_children():
        if isinstance(child, LocalConv):
            setattr(module, name, FoldedLocal(child))
        else:
            fold_locals(child)


def fold_parts(model: Any) -> None:
    """Let the folded units of a `PartsSeENet` that read a concatenation take its parts."""
    pyramid: Any = model.pyramid
    _, c2, c3, c4 = model.backbone.channels
    channels = [c2]
    for level, stage in ((pyramid.P2, c3), (pyramid.P3, c4), (pyramid.P4, None)):
        for branch in level.branches:
            branch[0] = FoldedParts(branch[0], channels)
        channels = [*channels, level.out_channels - sum(channels), *(() if stage is None else (stage,))]
    reduce: Any = model.reduce
    model.reduce = FoldedParts(reduce, channels)
