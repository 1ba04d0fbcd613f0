"""A network's parts and costs, and the dilation rates that a crop never feeds."""

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
from seenet.core.files import bundled_models
from seenet.model import PEERS, PeerNetwork, SeENet, Segmenter, StageProbe, create_model
from seenet.model.backbone import Backbone
from seenet.model.receptive_field import ReceptiveField, receptive_field
from seenet.model.seenet import ASPP, VARIANTS, SeEM

TRIED = (
    "resnet18",
    "resnet50",
    "resnet101",
    "tf_efficientnet_lite0",
    "mobilenetv3_small_050",
    "convnext_atto",
    "regnetx_002",
)
"""Backbones that the tests build."""
PARTS = ("B1", "B2", "B3", "B4", "P2", "P3", "P4", "P_out", "auxiliary", "logits")


@dataclass(frozen=True)
class Part:
    """A part of a network: output shape (C, h, w) for one image, parameters and FLOPs.

    A multiply-add counts as two FLOPs.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    flops: int


@dataclass(frozen=True)
class Summary:
    """Parts and receptive field of a network, as `seenet model` prints them."""

    parts: list[Part]
    field: ReceptiveField

    def result(self) -> dict[str, Any]:
        """Return JSON values; `receptive_radius` is in pixels, null where it is infinite."""
        radius = None if math.isinf(self.field.radius) else int(self.field.radius)
        return {"parts": [asdict(part) for part in self.parts], "receptive_radius": radius}

    def table(self) -> str:
        """Return a line for each part, one for the sum, and the receptive radius."""
        parameters = sum(part.parameters for part in self.parts)
        flops = sum(part.flops for part in self.parts)
        rows = [(p.name, " x ".join(map(str, p.shape)), p.parameters, p.flops) for p in self.parts]
        lines = [f"{'part':<10} {'output':>18} {'parameters':>12} {'GFLOP':>9}"]
        for name, shape, count, cost in [*rows, ("sum", "", parameters, flops)]:
            lines.append(f"{name:<10} {shape:>18} {count:>12,} {cost / 1e9:>9.2f}")
        return "\n".join([*lines, f"receptive radius: {self.field}"])


def summarize(model: Segmenter, height: int, width: int) -> list[Part]:
    """Count parameters and FLOPs of each part, for one image, on torch's meta device.

    The parts are B1 to B4, the levels of the pyramid, P_out and logits. A module between two named
    tensors counts for the later one; `logits` includes the refinement and, of peers, everything
    above the backbone. A network of `model.factory` is one part.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    flops: dict[nn.Module, int] = {}

    def count(module: nn.Conv2d | nn.Linear, _: tuple[Tensor, ...], output: Tensor) -> None:
        # A kernel is O x C / groups x h x w, a matrix O x C: an output value takes all but the O.
        flops[module] = flops.get(module, 0) + 2 * module.weight[0].numel() * output.numel()

    for module in twin.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    image = torch.zeros(1, model.options["in_channels"], height, width, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = twin.forward_features(image)
    parts = _parts_of(twin)
    totals: dict[str, list[int]] = {name: [0, 0] for name in features}
    for module in twin.modules():
        if own := sum(parameter.numel() for parameter in module.parameters(recurse=False)):
            totals[parts[module]][0] += own
            totals[parts[module]][1] += flops.get(module, 0)
    # Operations of other modules (attention, transposed convolutions) count for the last part.
    totals["logits"][1] += counter.get_total_flops() - sum(flops.values())
    return [
        Part(name, tuple(features[name].shape[1:]), *totals[name])
        for name in PARTS
        if name in features
    ]


def _parts_of(model: Segmenter) -> dict[nn.Module, str]:
    """Return the part that each module belongs to."""
    parts: dict[nn.Module, str] = dict.fromkeys(model.modules(), "logits")
    if isinstance(model.backbone, Backbone):
        try:
            stages = model.backbone.stage_modules()
        except UsageError:  # they are interleaved, and complete only together
            stages = [[], [], [], list(model.backbone.modules())]
        for index, modules in enumerate(stages, start=1):
            parts |= dict.fromkeys(modules, f"B{index}")
    for name, level in _levels(model).items():
        parts |= dict.fromkeys(level.modules(), name)
    return parts


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
    """Return a warning for each part with rates not smaller than a side of the training grid.

    Their outer taps meet only padding in training, and are untrained on larger images.

    Args:
        crop: Height and width of the training crop.
    """
    warnings = []
    for name, rates, stride in _dilated(model):
        grid = (ceil(crop[0] / stride), ceil(crop[1] / stride))
        dead = [str(rate) for rate in rates if rate >= min(grid)]
        if dead:
            warnings.append(
                f"{name}: rates {', '.join(dead)} on a {grid[0]}x{grid[1]} grid "
                "never see data off their centre"
            )
    return warnings


def _dilated(model: Segmenter) -> list[tuple[str, Sequence[int], int]]:
    """List name, rates and grid stride of each part with atrous convolutions above the backbone."""
    strides = model.backbone.strides
    if isinstance(model, PeerNetwork):
        rates = {
            module.dilation[0]
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and name.startswith(("decoder.", "head."))
        }
        return [("ASPP", sorted(rates - {1}), strides[3])]
    if not isinstance(model, SeENet | StageProbe):
        return []
    # The backbone of a probe ends at the probe's stages.
    grids = dict(zip(("P2", "P3", "P4"), strides[1:], strict=False))
    parts: list[tuple[str, Sequence[int], int]] = [
        (name, level.rates, grids[name])
        for name, level in _levels(model).items()
        if isinstance(level, SeEM) and name in grids
    ]
    if isinstance(model.head, ASPP):
        parts.append(("ASPP", model.head.rates, strides[3]))
    return parts


def catalogue() -> dict[str, list[str]]:
    """List the variants, the peers, the backbones that the tests build and the bundled models."""
    return {
        "variants": [f"{name} ({variant.rows})" for name, variant in VARIANTS.items()],
        "peers": list(PEERS),
        "backbones tried": list(TRIED),
        "bundled models": sorted(bundled_models()) or ["none"],
    }


def summary_of(
    variant: str, backbone: str, classes: int, size: int, options: dict[str, Any]
) -> Summary:
    """Summarize a network by the options of `create_model`, without memory for its weights.

    Raises UsageError as `create_model` does, and for options that are arguments here.
    """
    for name, instead in (
        ("variant", "the argument VARIANT"),
        ("backbone", "--backbone"),
        ("num_classes", "--classes"),
    ):
        if name in options:
            raise UsageError(f"{name}={options[name]}: give it by {instead}")
    with torch.device("meta"):
        model = create_model(variant, backbone=backbone, num_classes=classes, **options)
        parts = summarize(model, size, size)
    # Outside of the meta device: the field is computed with numbers.
    return Summary(parts, receptive_field(model))
