"""SeENet and the other rows of Table 1, put together (Fig. 6)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from seenet.core.errors import UsageError
from seenet.model.aspp import ASPP
from seenet.model.backbone import Backbone
from seenet.model.bam import BAM, Classifier, Skip
from seenet.model.pyramid import ParallelPyramid, pool_to
from seenet.model.seem import ConvUnit, SeEM, SeEMFS
from seenet.model.segmenter import Normalization, Segmenter
from seenet.model.window import Window

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
