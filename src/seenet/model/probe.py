"""Stage probes (Table 2): how well a stage of a trained network separates the classes by itself."""

from typing import Any

import torch
from torch import Tensor, nn

from seenet.model.backbone import Backbone
from seenet.model.seenet import VARIANTS, ConvUnit, enhancement, pool_to
from seenet.model.segmenter import Normalization, Segmenter

PROBES = {
    "B2": ("B2",),
    "EB2": ("P2",),
    "B3": ("B3",),
    "B3+B2": ("B2", "B3"),
    "B3+EB2": ("P2", "B3"),
}
"""Tensors that a probe reads, by its name in Table 2; EB2 is P2, the enhanced B2."""
WIDTH = 256


def probes_of(variant: str) -> list[str]:
    """List the probes that a variant (or peer) can have: without P2 there is no EB2."""
    enhanced = variant in VARIANTS and VARIANTS[variant].levels[0] is not None
    return [name for name, inputs in PROBES.items() if enhanced or "P2" not in inputs]


def levels_of(probe: str | None) -> int:
    """Return the number of backbone stages that are needed: a probe leaves out those above it."""
    return 4 if probe is None else 3 if "B3" in PROBES[probe] else 2


class StageProbe(Segmenter):
    """A 3x3x256 conv unit and a 1x1 classifier on one or two stages of a network.

    The layers above the stages are left out. Where the grids differ the finer stage is
    average-pooled to the coarser. `create_model` describes the options.
    """

    def __init__(
        self, backbone: Backbone, normalization: Normalization, options: dict[str, Any]
    ) -> None:
        super().__init__(normalization, options)
        self.backbone = backbone
        self.pad_multiple = backbone.pad_multiple  # the backbone pads its images itself
        self.inputs = PROBES[options["probe"]]
        channels: dict[str, int] = dict(zip(("B1", "B2", "B3"), backbone.channels, strict=False))
        self.P2: nn.Module | None = None
        if "P2" in self.inputs:
            kind = VARIANTS[options["variant"]].levels[0]
            p2 = enhancement(kind, 0, channels["B2"], backbone.strides, options)
            self.P2, channels["P2"] = p2, p2.out_channels
        width = sum(channels[name] for name in self.inputs)
        self.head = nn.Sequential(ConvUnit(width, WIDTH, 3), nn.Conv2d(WIDTH, self.num_classes, 1))
        self.auxiliary = None

    def below(self) -> list[nn.Module]:
        """Return the modules below the probe's head."""
        return [self.backbone, *([self.P2] if self.P2 is not None else [])]

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        self._check_batch_norm(images, self.backbone.strides[-1])
        features = dict(zip(("B1", "B2", "B3"), self.backbone(images), strict=False))
        if self.P2 is not None:
            features["P2"] = self.P2(features["B2"])
        inputs = [features[name] for name in self.inputs]
        pooled = [pool_to(x, inputs[-1]) for x in inputs]
        features["scores"] = self.head(torch.cat(pooled, dim=1))
        return features
