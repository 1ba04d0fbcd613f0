"""SeENet as in the paper (Pang et al., ICCV 2019), from the conv unit up to the rows of Table 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.core.errors import UsageError
from seenet.model.backbone import Backbone
from seenet.model.depthwise import DepthwiseConv2d
from seenet.model.segmenter import Normalization, Segmenter, Window


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


def pool_to(x: Tensor, like: Tensor) -> Tensor:
    """Average-pool x to the next level's coarser grid (2x2, ceil, padding not counted); x itself where the grids agree."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    if pooled.shape[-2:] != like.shape[-2:]:
        raise ValueError(f"grids {tuple(x.shape[-2:])} and {tuple(like.shape[-2:])} are not a factor of 2 apart")
    return pooled


class ParallelPyramid(nn.Module):
    """From bottom to top: enhance, then concatenate the backbone's next stage.

    P2 = enhance2(B2); P3 = enhance3([P2, B3]); P4 = enhance4([P3, B4]). `enhance4` is None for `pfp`, whose ASPP takes [P3, B4].
    """

    def __init__(self, enhance2: nn.Module, enhance3: nn.Module, enhance4: nn.Module | None) -> None:
        super().__init__()
        self.P2, self.P3, self.P4 = enhance2, enhance3, enhance4

    def forward(self, b2: Tensor, b3: Tensor, b4: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the enhanced levels by name, and the top: P4, or [P3, B4] where nothing enhances it."""
        p2 = self.P2(b2)
        p3 = self.P3(torch.cat([pool_to(p2, b3), b3], dim=1))
        top = torch.cat([pool_to(p3, b4), b4], dim=1)
        if self.P4 is None:
            return {"P2": p2, "P3": p3}, top
        p4 = self.P4(top)
        return {"P2": p2, "P3": p3, "P4": p4}, p4


class Classifier(nn.Sequential):
    """3x3 conv unit, then 1x1 with bias to class scores: N x C x h x w -> N x K x h x w (end of Fig. 4c)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(ConvUnit(channels, channels, 3), nn.Conv2d(channels, num_classes, 1))


class BAM(nn.Module):
    """Boundary attention module: P_out refined by what it does not see yet in the low-level features B.

    P: N x c_p x h x w, B: N x c x h x w -> class scores N x K x h x w and the attention A, N x c x h x w in (0, 1).
    P and E are added: Fig. 4c draws a plus.
    """

    def __init__(self, p_channels: int, b_channels: int, num_classes: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(p_channels, b_channels, 1)
        self.fuse = nn.Sequential(ConvUnit(b_channels, p_channels), ConvUnit(p_channels, p_channels, 3))
        self.classifier = Classifier(p_channels, num_classes)

    def forward(self, p: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        attention = 1 - torch.sigmoid(self.project(p))  # Eq. 3
        boundary = attention * b  # Eq. 4
        return self.classifier(p + self.fuse(boundary)), attention


class Skip(nn.Module):
    """Boundary refinement by a plain skip ("BF", Table 1 i): the same as BAM without attention."""

    def __init__(self, p_channels: int, b_channels: int, num_classes: int) -> None:
        super().__init__()
        self.fuse = nn.Sequential(ConvUnit(b_channels, p_channels), ConvUnit(p_channels, p_channels, 3))
        self.classifier = Classifier(p_channels, num_classes)

    def forward(self, p: Tensor, b: Tensor) -> Tensor:
        scores: Tensor = self.classifier(p + self.fuse(b))
        return scores


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


PYRAMID_RATES = ((1, 2, 4, 8), (3, 6, 9, 12), (7, 13, 19, 25))
"""Rates at B2, B3, B4 (Sec. 3.4), whatever module stands there."""
ASPP_RATES = (6, 12, 18, 24)


@dataclass(frozen=True)
class Variant:
    """A row of Table 1: what enhances B2, B3 and B4 ("conv", "seem", "fs" or none), and what refines P_out."""

    rows: str
    levels: tuple[str | None, str | None, str | None]
    refine: str | None = None


VARIANTS = {
    "baseline": Variant("a, c", (None, None, None)),
    "pfp": Variant("b, d", ("conv", "conv", None)),
    "seem-fs": Variant("e", (None, None, "fs")),
    "pfp-seem": Variant("f", ("seem", "seem", "seem")),
    "pfp-seem-fs": Variant("g", ("fs", "fs", "fs")),
    "pfp-mixed": Variant("h", ("seem", "seem", "fs")),
    "pfp-mixed-bf": Variant("i", ("seem", "seem", "fs"), "skip"),
    "seenet": Variant("j", ("seem", "seem", "fs"), "bam"),
}


def auxiliary_head(channels: int, num_classes: int) -> nn.Module:
    """B3 -> class scores on its grid; as wide as the head of torchvision's FCN, from which the field has its auxiliary loss."""
    return nn.Sequential(ConvUnit(channels, max(channels // 4, 16), 3), nn.Conv2d(max(channels // 4, 16), num_classes, 1))


def scaled_rates(rates: Sequence[int], stride: int, options: dict[str, Any]) -> tuple[int, ...]:
    """Rates on a grid of this stride, by the option `rates`."""
    scale = stride / 8 if options["rates"] == "scaled" else 1
    return tuple(ceil(rate / scale) for rate in rates)


def enhancement(kind: str | None, level: int, channels: int, strides: Sequence[int], options: dict[str, Any]) -> Any:
    """What enhances level 0, 1 or 2 (B2, B3 or B4, of these `channels`) in a `Variant`; None where nothing does."""
    if kind is None:
        return None
    if kind == "conv":
        return ConvUnit(channels, 512, 3)
    rates = scaled_rates(PYRAMID_RATES[level], strides[level + 1], options)
    width = options["width"]
    return SeEM(channels, rates, width) if kind == "seem" else SeEMFS(channels, rates, width, local_conv=options["local_conv"])


def check_batch_norm(model: Segmenter, images: Tensor, stride: int) -> None:
    """UsageError where training would give batch norm a single point of a grid of this stride."""
    points = images.shape[0] * ceil(images.shape[2] / stride) * ceil(images.shape[3] / stride)
    if model.training and points == 1:
        raise UsageError(
            f"training on one image of {images.shape[2]}x{images.shape[3]} pixels gives batch norm a grid of one point; "
            f"use a crop over {stride} pixels or a larger batch"
        )


class SeENet(Segmenter):
    """One row of Table 1 on a backbone. Built by `create_model`, which describes the options."""

    def __init__(self, backbone: Backbone, normalization: Normalization, options: dict[str, Any]) -> None:
        super().__init__(normalization, options)
        self.backbone = backbone
        # The backbone pads its images itself.
        self.pad_multiple = backbone.pad_multiple
        variant = VARIANTS[options["variant"]]
        c1, c2, c3, c4 = backbone.channels
        strides = backbone.strides
        p2 = enhancement(variant.levels[0], 0, c2, strides, options)
        p3 = enhancement(variant.levels[1], 1, p2.out_channels + c3, strides, options) if p2 else None
        p4 = enhancement(variant.levels[2], 2, p3.out_channels + c4 if p3 else c4, strides, options)
        top = p4.out_channels if p4 else (p3.out_channels if p3 else 0) + c4
        self.pyramid = ParallelPyramid(p2, p3, p4) if p2 and p3 else None
        self.P4 = p4 if self.pyramid is None else None
        self.reduce: nn.Module | None = None
        self.refine: BAM | Skip | None = None
        refinements: dict[str, type[BAM] | type[Skip]] = {"bam": BAM, "skip": Skip}
        if p4 is None:
            self.head: nn.Module | None = ASPP(top, self.num_classes, scaled_rates(ASPP_RATES, strides[3], options))
        else:
            p_out = max(128, c1) if options["p_out"] == "auto" else int(options["p_out"])
            self.reduce = ConvUnit(top, p_out)
            self.refine = refinements[variant.refine](p_out, c1, self.num_classes) if variant.refine else None
            self.head = None if self.refine else Classifier(p_out, self.num_classes)
        self.auxiliary = auxiliary_head(c3, self.num_classes) if options["auxiliary"] else None

    def _features(self, images: Tensor, window: Window | None = None) -> dict[str, Tensor]:
        check_batch_norm(self, images, self.backbone.strides[3])
        b1, b2, b3, b4 = self.backbone(images)
        features = {"B1": b1, "B2": b2, "B3": b3, "B4": b4}
        top = b4
        if self.pyramid is not None:
            levels, top = self.pyramid(b2, b3, b4)
            features |= levels
        elif self.P4 is not None:
            top = features["P4"] = self.P4(b4)
        if self.reduce is not None:
            top = features["P_out"] = self.reduce(top)
        if self.refine is None:
            assert self.head is not None
            features["scores"] = self.head(top)
            return features
        low = b1 if self.options["refine_stride"] == 4 else pool_to(b1, b2)
        p = self.upsampled(top, low, window)
        if isinstance(self.refine, BAM):
            features["scores"], features["attention"] = self.refine(p, low)
        else:
            features["scores"] = self.refine(p, low)
        return features

    def upsampled(self, x: Tensor, low: Tensor, window: Window | None = None) -> Tensor:
        """P_out, or what is made of it, bilinear to the grid where it meets B1; x itself where the grids agree.

        In a tile (`window`) it is resized as in the whole picture.
        """
        if x.shape[-2:] == low.shape[-2:]:
            return x
        if window is None:
            return F.interpolate(x, low.shape[-2:], mode="bilinear", align_corners=False)
        strides = self.backbone.strides
        return window.resized(x, strides[3], low, strides[0] if self.options["refine_stride"] == 4 else strides[1])
