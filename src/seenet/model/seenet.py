"""SeENet: the whole paper in one file, from the convolution unit to the network.

Pang, Li, Shen, Shao: "Towards Bridging Semantic Gap to Improve Semantic Segmentation", ICCV 2019.

    B1, B2, B3, B4 = backbone(images)   stride 4, then 8 (B3 and B4 are dilated instead)
    P2 = SeEM(B2)                       Fig. 4a, Eq. 1
    P3 = SeEM([P2, B3])                 [,] concatenates channels (Fig. 3)
    P4 = SeEM-FS([P3, B4])              Fig. 4b, Eq. 2
    P_out = 1x1(P4)
    scores = BAM(P_out, B1)             Fig. 4c, Eq. 3, Eq. 4

Table 1 has variants of this network. Sizes in comments: N images, C channels, h x w points of a
grid, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.model.backbone import Backbone
from seenet.model.depthwise import DepthwiseConv2d
from seenet.model.segmenter import Normalization, Segmenter, Window


def same_conv(
    channels: tuple[int, int], kernel: tuple[int, int], dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Return a convolution without bias that keeps the grid, from channels[0] to channels[1]."""
    kind = nn.Conv2d if groups == 1 else DepthwiseConv2d
    padding = (dilation * (kernel[0] // 2), dilation * (kernel[1] // 2))
    return kind(*channels, kernel, padding=padding, dilation=dilation, groups=groups, bias=False)


class ConvUnit(nn.Sequential):
    """Convolution without bias, batch norm, ReLU (Sec. 3.2): N x C x h x w -> N x C' x h x w."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(
            same_conv((in_channels, out_channels), (kernel, kernel), dilation, groups),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )
        self.out_channels = out_channels


def local_size(rate: int) -> int:
    """Return r_i, the smallest odd number >= dr_i: it leaves no gap between the dilated taps."""
    return rate if rate % 2 else rate + 1


class LocalConv(nn.Module):
    """Local r x r convolution as {r x 1, 1 x r} + {1 x r, r x 1}, batch norm, ReLU (Fig. 4b).

    N x C x h x w -> N x C x h x w.

    Args:
        size: r, odd.
        depthwise: Give every channel its own kernels.
    """

    def __init__(self, channels: int, size: int, *, depthwise: bool = False) -> None:
        super().__init__()
        groups = channels if depthwise else 1

        def conv(*kernel: int) -> nn.Conv2d:
            return same_conv((channels, channels), (kernel[0], kernel[1]), groups=groups)

        self.column_row = nn.Sequential(conv(size, 1), conv(1, size))
        self.row_column = nn.Sequential(conv(1, size), conv(size, 1))
        self.norm = nn.BatchNorm2d(channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm(self.column_row(x) + self.row_column(x)))
        return out


def _branch(in_channels: int, width: int, rate: int, local_conv: str | None) -> nn.Sequential:
    """Return a branch of Fig. 4a, or with `local_conv` of Fig. 4b: C -> width channels."""
    layers: list[nn.Module] = [ConvUnit(in_channels, width)]  # 1x1
    if local_conv is not None and rate > 1:  # r_i x r_i; a rate of 1 has no gaps to fill
        layers.append(LocalConv(width, local_size(rate), depthwise=local_conv == "depthwise"))
    layers.append(ConvUnit(width, width, 3, dilation=rate, groups=width))  # depthwise, dr_i
    layers.append(ConvUnit(width, width))  # 1x1
    return nn.Sequential(*layers)


class SeEM(nn.Module):
    """Semantic enhancement module (Sec. 3.2, Fig. 4a): the input and four atrous branches.

    N x C x h x w -> N x (C + 4 width) x h x w, concatenated. A branch samples sparsely (Eq. 1):
    with dilation dr_i = 3 an output point sees x_0, x_3 and x_6 of a row.

    Args:
        rates: dr_1 to dr_4.
        width: Channels of a branch.
        local_conv: The local convolution of `SeEMFS`; None for SeEM.
    """

    def __init__(
        self,
        in_channels: int,
        rates: Sequence[int],
        width: int = 128,
        *,
        local_conv: str | None = None,
    ) -> None:
        super().__init__()
        self.rates = tuple(rates)
        self.out_channels = in_channels + len(self.rates) * width
        self.branches = nn.ModuleList(
            _branch(in_channels, width, rate, local_conv) for rate in self.rates
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, *(branch(x) for branch in self.branches)], dim=1)


class SeEMFS(SeEM):
    """SeEM with full sampling (Fig. 4b and 5): a local r_i x r_i convolution in each branch.

    With r_i >= dr_i every input point inside the window of the dilated kernel reaches the output
    (Eq. 2): with dr_i = 3 an output point sees x_0 to x_8 of a row.

    Args:
        local_conv: "full" or "depthwise".
    """

    def __init__(
        self, in_channels: int, rates: Sequence[int], width: int = 128, *, local_conv: str = "full"
    ) -> None:
        super().__init__(in_channels, rates, width, local_conv=local_conv)


def pool_to(x: Tensor, like: Tensor) -> Tensor:
    """Average-pool x to the grid of the next level (2x2, ceil, padding not counted).

    Returns x itself where the grids are equal.

    Raises ValueError where the grids are more than a factor of 2 apart.
    """
    if x.shape[-2:] == like.shape[-2:]:
        return x
    pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    if pooled.shape[-2:] != like.shape[-2:]:
        grids = f"{tuple(x.shape[-2:])} and {tuple(like.shape[-2:])}"
        raise ValueError(f"grids {grids} are not a factor of 2 apart")
    return pooled


class ParallelPyramid(nn.Module):
    """Parallel feature pyramid (Sec. 3.1 and 3.4, Fig. 3 and 6), bottom-up.

    P2 = enhance2(B2); P3 = enhance3([P2, B3]); P4 = enhance4([P3, B4]).

    Args:
        enhance4: None for the variant `pfp`, whose head is an ASPP on [P3, B4].
    """

    def __init__(
        self, enhance2: nn.Module, enhance3: nn.Module, enhance4: nn.Module | None
    ) -> None:
        super().__init__()
        self.P2, self.P3, self.P4 = enhance2, enhance3, enhance4

    def forward(self, b2: Tensor, b3: Tensor, b4: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the enhanced levels by name, and the top: P4, or [P3, B4] without `enhance4`."""
        # ResNet-101, output stride 8: every grid is H/8 x W/8.
        p2 = self.P2(b2)  # 512 -> 1024 channels
        p3 = self.P3(torch.cat([pool_to(p2, b3), b3], dim=1))  # 1024 + 1024 -> 2560
        levels, top = {"P2": p2, "P3": p3}, torch.cat([pool_to(p3, b4), b4], dim=1)
        if self.P4 is not None:
            top = levels["P4"] = self.P4(top)  # 2560 + 2048 -> 5120
        return levels, top


class Classifier(nn.Sequential):
    """3x3 conv unit, then 1x1 with bias: N x C x h x w -> N x K x h x w (end of Fig. 4c)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(ConvUnit(channels, channels, 3), nn.Conv2d(channels, num_classes, 1))


def _fuse(b_channels: int, p_channels: int) -> nn.Sequential:
    """Return the two conv units, 1x1 and 3x3, from B' to E, which is as wide as P_out."""
    return nn.Sequential(ConvUnit(b_channels, p_channels), ConvUnit(p_channels, p_channels, 3))


class BAM(nn.Module):
    """Boundary attention module (Sec. 3.3, Fig. 4c): refine P_out by the low-level features B.

    P: N x c_p x h x w, B: N x c x h x w -> scores N x K x h x w, attention A: N x c x h x w in
    (0, 1). P and E are added, not concatenated: Fig. 4c draws a plus.
    """

    def __init__(self, p_channels: int, b_channels: int, num_classes: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(p_channels, b_channels, 1)
        self.fuse = _fuse(b_channels, p_channels)
        self.classifier = Classifier(p_channels, num_classes)

    def forward(self, p: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        attention = 1 - torch.sigmoid(self.project(p))  # Eq. 3: A = 1 - sigmoid(P'), P' = 1x1(P)
        boundary = attention * b  # Eq. 4: B' = A * B, N x c x h x w
        return self.classifier(p + self.fuse(boundary)), attention  # P + E, E = 3x3(1x1(B'))


class Skip(nn.Module):
    """Boundary refinement without attention ("BF", Table 1 i): BAM with B' = B."""

    def __init__(self, p_channels: int, b_channels: int, num_classes: int) -> None:
        super().__init__()
        self.fuse = _fuse(b_channels, p_channels)
        self.classifier = Classifier(p_channels, num_classes)

    def forward(self, p: Tensor, b: Tensor) -> Tensor:
        scores: Tensor = self.classifier(p + self.fuse(b))
        return scores


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling as in DeepLabv2, the baseline's head (Sec. 4.1.1).

    Four plain 3x3 convolutions (bias, no norm) to class scores, summed:
    N x C x h x w -> N x K x h x w.
    """

    def __init__(self, in_channels: int, num_classes: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.rates = tuple(rates)
        self.branches = nn.ModuleList(
            nn.Conv2d(in_channels, num_classes, 3, padding=dr, dilation=dr) for dr in self.rates
        )

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.branches
        scores: Tensor = first(x)
        for branch in others:
            scores = scores + branch(x)
        return scores


def auxiliary_head(channels: int, num_classes: int) -> nn.Module:
    """Return the head of the auxiliary loss on B3, as wide as that of torchvision's FCN."""
    width = max(channels // 4, 16)
    return nn.Sequential(ConvUnit(channels, width, 3), nn.Conv2d(width, num_classes, 1))


@dataclass(frozen=True)
class Variant:
    """One network of Table 1.

    Attributes:
        rows: Its rows in the table.
        levels: The module that enhances B2, B3 and B4: "conv", "seem", "fs" or None.
        refine: The module that refines P_out by B1: "skip", "bam" or None.
    """

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

PYRAMID_RATES = ((1, 2, 4, 8), (3, 6, 9, 12), (7, 13, 19, 25))
"""Dilation rates at B2, B3 and B4 (Sec. 3.4), whatever module stands there."""
ASPP_RATES = (6, 12, 18, 24)


def enhancement(
    kind: str | None, level: int, channels: int, strides: Sequence[int], options: dict[str, Any]
) -> Any:
    """Return the module that enhances a level; None where the variant has none.

    Args:
        kind: As in `Variant.levels`.
        level: 0, 1 or 2 for B2, B3 or B4.
        channels: Channels of the module's input.
        strides: Strides of the backbone's stages, B1 first.
    """
    if kind is None:
        return None
    if kind == "conv":
        return ConvUnit(channels, 512, 3)
    rates, width = scaled_rates(PYRAMID_RATES[level], strides[level + 1], options), options["width"]
    if kind == "seem":
        return SeEM(channels, rates, width)
    return SeEMFS(channels, rates, width, local_conv=options["local_conv"])


def scaled_rates(rates: Sequence[int], stride: int, options: dict[str, Any]) -> tuple[int, ...]:
    """Return the rates for a grid of this stride; "scaled" keeps their reach in pixels."""
    scale = stride / 8 if options["rates"] == "scaled" else 1
    return tuple(ceil(rate / scale) for rate in rates)


class SeENet(Segmenter):
    """SeENet (Fig. 6) or another row of Table 1; `create_model` describes the options.

    Images N x 3 x H x W -> B1 to B4 -> pyramid -> P_out -> refinement by B1 -> scores
    N x K x h x w. Without refinement the head is a `Classifier`; where B4 is not enhanced, an ASPP.
    """

    def __init__(
        self, backbone: Backbone, normalization: Normalization, options: dict[str, Any]
    ) -> None:
        super().__init__(normalization, options)
        self.backbone = backbone
        self.pad_multiple = backbone.pad_multiple  # the backbone pads its images itself
        variant, strides = VARIANTS[options["variant"]], backbone.strides
        c1, c2, c3, c4 = backbone.channels
        # The order of the modules is the order in which their random weights are drawn.
        p2 = enhancement(variant.levels[0], 0, c2, strides, options)
        c3_in = c3 + (p2.out_channels if p2 else 0)
        p3 = enhancement(variant.levels[1], 1, c3_in, strides, options)
        c4_in = c4 + (p3.out_channels if p3 else 0)
        p4 = enhancement(variant.levels[2], 2, c4_in, strides, options)
        self.pyramid: Any = ParallelPyramid(p2, p3, p4) if p2 and p3 else None
        self.P4 = p4 if self.pyramid is None else None
        self.reduce: nn.Module | None = None
        self.refine: Any = None
        self.head: nn.Module | None = None
        if p4 is None:
            self.head = ASPP(c4_in, self.num_classes, scaled_rates(ASPP_RATES, strides[3], options))
        else:
            p_out = max(128, c1) if options["p_out"] == "auto" else int(options["p_out"])
            self.reduce = ConvUnit(p4.out_channels, p_out)
            if variant.refine is None:
                self.head = Classifier(p_out, self.num_classes)
            else:
                kind = BAM if variant.refine == "bam" else Skip
                self.refine = kind(p_out, c1, self.num_classes)
        self.auxiliary = auxiliary_head(c3, self.num_classes) if options["auxiliary"] else None

    def _scores(self, images: Tensor, window: Window | None = None) -> Tensor:
        return self._features(images, window)["scores"]

    def _features(self, images: Tensor, window: Window | None = None) -> dict[str, Tensor]:
        self._check_batch_norm(images, self.backbone.strides[3])
        # Sizes at output stride 8: B1 N x c1 x H/4 x W/4, the others at H/8 x W/8.
        b1, b2, b3, b4 = self.backbone(images)
        features, top = {"B1": b1, "B2": b2, "B3": b3, "B4": b4}, b4
        if self.pyramid is not None:
            levels, top = self.pyramid(b2, b3, b4)
            features |= levels
        elif self.P4 is not None:
            top = features["P4"] = self.P4(b4)
        if self.reduce is not None:
            top = features["P_out"] = self.reduce(top)  # N x p_out x H/8 x W/8
        if self.head is not None:
            features["scores"] = self.head(top)  # N x K x H/8 x W/8
            return features
        low = b1 if self.options["refine_stride"] == 4 else pool_to(b1, b2)
        p = self.upsampled(top, low, window)  # N x p_out x H/4 x W/4
        if isinstance(self.refine, BAM):
            features["scores"], features["attention"] = self.refine(p, low)  # N x K x H/4 x W/4
        else:
            features["scores"] = self.refine(p, low)
        return features

    def upsampled(self, x: Tensor, low: Tensor, window: Window | None = None) -> Tensor:
        """Resize P_out, or a tensor on its grid, bilinearly to the grid of B1 (`low`).

        A tile (`window`) is resized as in the whole image.
        """
        if x.shape[-2:] == low.shape[-2:]:
            return x
        if window is None:
            return F.interpolate(x, low.shape[-2:], mode="bilinear", align_corners=False)
        strides = self.backbone.strides
        to = strides[0] if self.options["refine_stride"] == 4 else strides[1]
        return window.resized(x, strides[3], low, to)
