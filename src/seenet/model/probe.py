"""Stage probes (Table 2): how well a stage of a trained network tells the classes on its own."""

from typing import Any

import torch
from torch import Tensor, nn

from seenet.model.backbone import Backbone
from seenet.model.seenet import VARIANTS, ConvUnit, check_batch_norm, enhancement, pool_to
from seenet.model.segmenter import Normalization, Segmenter, Window

PROBES = {"B2": ("B2",), "EB2": ("P2",), "B3": ("B3",), "B3+B2": ("B2", "B3"), "B3+EB2": ("P2", "B3")}
"""Tensors that a probe reads, by its name in Table 2; EB2 is P2, the enhanced B2."""
WIDTH = 256


def probes_of(variant: str) -> list[str]:
    """List the probes that a variant (or peer) can have: without P2 there is no EB2."""
    enhanced = variant in VARIANTS and VARIANTS[variant].levels[0] is not None
    return [name for name, parts in PROBES.items() if enhanced or "P2" not in parts]


def levels_of(probe: str | None) -> int:
    """Return how many of the backbone's stages are needed: a probe leaves out those above it."""
    return 4 if probe is None else 3 if "B3" in PROBES[probe] else 2


class StageProbe(Segmenter):
    """A conv unit 3x3x256 and a 1x1 classifier on one or two stages, without what is above them.

    Where the grids differ the finer stage is average-pooled to the coarser. `create_model` builds
    it and describes the options.
    """

    def __init__(self, backbone: Backbone, normalization: Normalization, options: dict[str, Any]) -> None:
        super().__init__(normalization, options)
        self.backbone = backbone
        self.pad_multiple = backbone.pad_multiple  # the backbone pads its images itself
        self.parts = PROBES[options["probe"]]
        channels: dict[str, int] = dict(zip(("B1", "B2", "B3"), backbone.channels, strict=False))
        self.P2: nn.Module | None = None
        if "P2" in self.parts:
            enhance = enhancement(VARIANTS[options["variant"]].levels[0], 0, channels["B2"], backbone.strides, options)
            self.P2, channels["P2"] = enhance, enhance.out_channels
        width = sum(channels[name] for name in self.parts)
        self.head = nn.Sequential(ConvUnit(width, WIDTH, 3), nn.Conv2d(WIDTH, self.num_classes, 1))
        self.auxiliary = None

    def below(self) -> list[nn.Module]:
        """Return the modules that the probe stands on."""
        return [self.backbone, *([self.P2] if self.P2 is not None else [])]

    def _features(self, images: Tensor, window: Window | None = None) -> dict[str, Tensor]:
        check_batch_norm(self, images, self.backbone.strides[-1])
        features = dict(zip(("B1", "B2", "B3"), self.backbone(images), strict=False))
        if self.P2 is not None:
            features["P2"] = self.P2(features["B2"])
        parts = [features[name] for name in self.parts]
        features["scores"] = self.head(torch.cat([pool_to(part, parts[-1]) for part in parts], dim=1))
        return features
