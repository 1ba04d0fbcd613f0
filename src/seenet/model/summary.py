"""What a network consists of and costs, and which of its taps a crop never feeds."""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seenet.core.errors import UsageError
from seenet.core.find import bundled_models
from seenet.model import PEERS, PeerNetwork, SeENet, Segmenter, StageProbe, create_model
from seenet.model.aspp import ASPP
from seenet.model.backbone import Backbone
from seenet.model.network import VARIANTS
from seenet.model.receptive import ReceptiveField, receptive_field
from seenet.model.seem import SeEM


@dataclass(frozen=True)
class Part:
    """A part's output shape (C, h, w) for one image, its parameters and its FLOPs, two for each multiply-add."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    flops: int


@dataclass(frozen=True)
class Summary:
    """What `seenet model` shows of a network."""

    parts: list[Part]
    field: ReceptiveField

    def result(self) -> dict[str, Any]:
        """As JSON values; `receptive_radius` in pixels, null where it is infinite."""
        radius = None if math.isinf(self.field.radius) else int(self.field.radius)
        return {"parts": [asdict(part) for part in self.parts], "receptive_radius": radius}

    def table(self) -> str:
        """One line a part, the sum, and the receptive radius."""
        lines = [f"{'part':<10} {'output':>18} {'parameters':>12} {'GFLOP':>9}"]
        for part in self.parts:
            shape = " x ".join(map(str, part.shape))
            lines.append(f"{part.name:<10} {shape:>18} {part.parameters:>12,} {part.flops / 1e9:>9.2f}")
        parameters, flops = sum(part.parameters for part in self.parts), sum(part.flops for part in self.parts)
        lines.append(f"{'sum':<10} {'':>18} {parameters:>12,} {flops / 1e9:>9.2f}")
        return "\n".join([*lines, f"receptive radius: {self.field}"])


def summarize(model: Segmenter, height: int, width: int) -> list[Part]:
    """B1 to B4, the pyramid's levels, P_out and logits of an image of height x width; no memory or time is spent on computing it.

    Modules between two named tensors count for the later one; the last part, logits, holds the refinement, and of peers all that stands on
    the backbone. A network of `model.factory` is one part.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    flops: dict[nn.Module, int] = {}

    def count(module: nn.Conv2d | nn.Linear, _: tuple[Tensor, ...], output: Tensor) -> None:
        # A kernel is O x C / groups x h x w, a linear map's matrix O x C: an output point takes all of it but for the O.
        flops[module] = flops.get(module, 0) + 2 * module.weight[0].numel() * output.numel()

    for module in twin.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = twin.forward_features(torch.zeros(1, model.options["in_channels"], height, width, device="meta"))
    owners = _owners(twin)
    # What is neither (attention, transposed convolutions) counts for the last part.
    others = counter.get_total_flops() - sum(flops.values())
    totals: dict[str, list[int]] = {name: [0, 0] for name in features}
    for module in twin.modules():
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        if own:
            totals[owners[module]][0] += own
            totals[owners[module]][1] += flops.get(module, 0)
    totals["logits"][1] += others
    order = [name for name in (*_ORDER, *features) if name in features]
    return [Part(name, tuple(features[name].shape[1:]), *totals[name]) for name in dict.fromkeys(order) if name != "attention"]


_ORDER = ("B1", "B2", "B3", "B4", "P2", "P3", "P4", "P_out", "auxiliary", "logits")


def _owners(model: Segmenter) -> dict[nn.Module, str]:
    owners: dict[nn.Module, str] = dict.fromkeys(model.modules(), "logits")
    stages: list[list[nn.Module]] = []
    if isinstance(model.backbone, Backbone):
        try:
            stages = model.backbone.stage_modules()
        except UsageError:
            # Mixed, they are only done together.
            stages = [[], [], [], list(model.backbone.modules())]
    for index, leaves in enumerate(stages, start=1):
        owners |= dict.fromkeys(leaves, f"B{index}")
    for name, part in _levels(model).items():
        owners |= dict.fromkeys(part.modules(), name)
    return owners


def _levels(model: Segmenter) -> dict[str, nn.Module]:
    if isinstance(model, StageProbe):
        return {"P2": model.P2} if model.P2 is not None else {}
    if not isinstance(model, SeENet):
        return {"auxiliary": model.auxiliary} if model.auxiliary else {}
    pyramid = model.pyramid
    parts = {
        "P2": pyramid and pyramid.P2,
        "P3": pyramid and pyramid.P3,
        "P4": pyramid.P4 if pyramid else model.P4,
        "P_out": model.reduce,
        "auxiliary": model.auxiliary,
    }
    return {name: part for name, part in parts.items() if part is not None}


def dead_taps(model: Segmenter, crop: tuple[int, int]) -> list[str]:
    """Rates not smaller than a side of the training grid: their outer taps only meet padding, and answer untrained on larger images."""
    warnings = []
    for name, rates, stride in _dilated(model):
        grid = (ceil(crop[0] / stride), ceil(crop[1] / stride))
        dead = [str(rate) for rate in rates if rate >= min(grid)]
        if dead:
            warnings.append(f"{name}: rates {', '.join(dead)} on a {grid[0]}x{grid[1]} grid never see data off their centre")
    return warnings


def _dilated(model: Segmenter) -> list[tuple[str, Sequence[int], int]]:
    """Name, rates and stride of the grid of each part with atrous convolutions on the backbone."""
    if isinstance(model, PeerNetwork):
        parts = [module for part in (model.decoder, model.head) if part is not None for module in part.modules()]
        rates = {module.dilation[0] for module in parts if isinstance(module, nn.Conv2d) and module.dilation[0] > 1}
        return [("ASPP", sorted(rates), model.backbone.strides[3])] if rates else []
    if not isinstance(model, SeENet | StageProbe):
        return []
    # A probe's backbone ends where it stands.
    strides = dict(zip(("P2", "P3", "P4"), model.backbone.strides[1:], strict=False))
    found: list[tuple[str, Sequence[int], int]] = [
        (name, part.rates, strides[name]) for name, part in _levels(model).items() if isinstance(part, SeEM) and name in strides
    ]
    return [*found, ("ASPP", model.head.rates, model.backbone.strides[3])] if isinstance(model.head, ASPP) else found


TRIED = ("resnet18", "resnet50", "resnet101", "tf_efficientnet_lite0", "mobilenetv3_small_050", "convnext_atto", "regnetx_002")


def catalogue() -> dict[str, list[str]]:
    """What there is to choose from: variants, backbones that the tests build, bundled models."""
    return {
        "variants": [f"{name} ({variant.rows})" for name, variant in VARIANTS.items()],
        "peers": list(PEERS),
        "backbones tried": list(TRIED),
        "bundled models": sorted(bundled_models()) or ["none"],
    }


def summary_of(variant: str, backbone: str, classes: int, size: int, options: dict[str, Any]) -> Summary:
    """Of a network that is described, not built in memory; UsageError as `create_model`, and for options named twice."""
    for name, instead in (("variant", "the argument VARIANT"), ("backbone", "--backbone"), ("num_classes", "--classes")):
        if name in options:
            raise UsageError(f"{name}={options[name]}: give it by {instead}")
    with torch.device("meta"):
        model = create_model(variant, backbone=backbone, num_classes=classes, **options)
        return Summary(summarize(model, size, size), receptive_field(model))
