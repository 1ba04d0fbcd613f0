"""A network's parts and costs, and the dilation rates that a crop never feeds."""

import copy
import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seenet.core.errors import UsageError
from seenet.core.files import bundled_models
from seenet.model import PEERS, VARIANTS, Segmenter, create_model
from seenet.model.factory import FactoryNetwork
from seenet.model.receptive_field import ReceptiveField, receptive_field

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
    flops: dict[nn.Module, int] = defaultdict(int)

    def count(module: nn.Conv2d | nn.Linear, _: tuple[Tensor, ...], output: Tensor) -> None:
        # A kernel is O x C / groups x h x w, a matrix O x C: an output value takes all but the O.
        flops[module] += 2 * module.weight[0].numel() * output.numel()

    for module in twin.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    image = torch.zeros(1, model.options["in_channels"], height, width, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = twin.forward_features(image)
    totals: dict[str, list[int]] = {name: [0, 0] for name in features}
    # Operations of other modules (attention, transposed convolutions) count for the last part.
    totals["logits"][1] = counter.get_total_flops() - sum(flops.values())
    for module, part in _parts_of(twin).items():
        totals[part][0] += sum(parameter.numel() for parameter in module.parameters(recurse=False))
        totals[part][1] += flops[module]
    return [
        Part(name, tuple(features[name].shape[1:]), *totals[name])
        for name in PARTS
        if name in features
    ]


def _parts_of(model: Segmenter) -> dict[nn.Module, str]:
    """Return the part that each module belongs to."""
    parts: dict[nn.Module, str] = dict.fromkeys(model.modules(), "logits")
    if not isinstance(model, FactoryNetwork):
        try:
            stages = model.backbone.stage_modules()
        except UsageError:  # they are interleaved, and complete only together
            stages = [[], [], [], list(model.backbone.modules())]
        for index, modules in enumerate(stages, start=1):
            parts |= dict.fromkeys(modules, f"B{index}")
    levels = getattr(model, "pyramid", None) or model
    above = {name: getattr(levels, name, None) for name in ("P2", "P3", "P4")}
    above |= {"P_out": getattr(model, "reduce", None), "auxiliary": model.auxiliary}
    for name, part in above.items():
        if part is not None:
            parts |= dict.fromkeys(part.modules(), name)
    return parts


def dead_taps(model: Segmenter, crop: tuple[int, int]) -> list[str]:
    """Return a warning for each part with rates not smaller than a side of the training grid.

    Their outer taps meet only padding in training, and are untrained on larger images.

    Args:
        crop: Height and width of the training crop.
    """
    strides = model.backbone.strides
    # The backbone of a probe ends at the probe's stages.
    grids = dict(zip(("P2", "P3", "P4"), strides[1:], strict=False))
    if len(strides) == 4:
        grids |= {"decoder": strides[3], "head": strides[3]}
    warnings = []
    for name, part in model.named_modules():
        place = name.removeprefix("pyramid.")
        if place not in grids:
            continue
        rates = {conv.dilation[0] for conv in part.modules() if isinstance(conv, nn.Conv2d)}
        height, width = (ceil(side / grids[place]) for side in crop)
        dead = [str(rate) for rate in sorted(rates - {1}) if rate >= min(height, width)]
        if dead:
            warnings.append(
                f"{place if place.startswith('P') else 'ASPP'}: rates {', '.join(dead)} "
                f"on a {height}x{width} grid never see data off their centre"
            )
    return warnings


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
    arguments = {
        "variant": "the argument VARIANT",
        "backbone": "--backbone",
        "num_classes": "--classes",
    }
    for name in arguments.keys() & options.keys():
        raise UsageError(f"{name}={options[name]}: give it by {arguments[name]}")
    with torch.device("meta"):
        model = create_model(variant, backbone=backbone, num_classes=classes, **options)
        parts = summarize(model, size, size)
    # Outside of the meta device: the field is computed with numbers.
    return Summary(parts, receptive_field(model))
