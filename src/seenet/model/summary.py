"""What a network consists of and costs, and which of its taps a crop never feeds."""

import copy
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from seenet.core.errors import UsageError
from seenet.model import create_model
from seenet.model.aspp import ASPP
from seenet.model.find import bundled_models
from seenet.model.network import VARIANTS, SeENet
from seenet.model.seem import SeEM


@dataclass(frozen=True)
class Part:
    """A part's output shape (C, h, w) for one image, its parameters, and its FLOPs: two for each multiply-add of a convolution."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    flops: int


def summarize(model: SeENet, height: int, width: int) -> list[Part]:
    """B1 to B4, the pyramid's levels, P_out and logits of an image of height x width; no memory or time is spent on computing it.

    Modules between two named tensors count for the later one; the last part, logits, holds the refinement.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    flops: dict[nn.Module, int] = {}

    def count(module: nn.Conv2d, _: tuple[Tensor, ...], output: Tensor) -> None:
        taps = module.kernel_size[0] * module.kernel_size[1] * module.in_channels // module.groups
        flops[module] = flops.get(module, 0) + 2 * taps * output.numel()

    for module in twin.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        features = twin.forward_features(torch.zeros(1, model.options["in_channels"], height, width, device="meta"))
    owners = _owners(twin)
    totals: dict[str, list[int]] = {name: [0, 0] for name in features}
    for module in twin.modules():
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        if own:
            totals[owners[module]][0] += own
            totals[owners[module]][1] += flops.get(module, 0)
    order = [name for name in (*_ORDER, *features) if name in features]
    return [Part(name, tuple(features[name].shape[1:]), *totals[name]) for name in dict.fromkeys(order) if name != "attention"]


_ORDER = ("B1", "B2", "B3", "B4", "P2", "P3", "P4", "P_out", "auxiliary", "logits")


def _owners(model: SeENet) -> dict[nn.Module, str]:
    owners: dict[nn.Module, str] = dict.fromkeys(model.modules(), "logits")
    for index, leaves in enumerate(model.backbone.stage_modules(), start=1):
        owners |= dict.fromkeys(leaves, f"B{index}")
    for name, part in _levels(model).items():
        owners |= dict.fromkeys(part.modules(), name)
    return owners


def _levels(model: SeENet) -> dict[str, nn.Module]:
    pyramid = model.pyramid
    parts = {
        "P2": pyramid and pyramid.P2,
        "P3": pyramid and pyramid.P3,
        "P4": pyramid.P4 if pyramid else model.P4,
        "P_out": model.reduce,
        "auxiliary": model.auxiliary,
    }
    return {name: part for name, part in parts.items() if part is not None}


def dead_taps(model: SeENet, crop: tuple[int, int]) -> list[str]:
    """Rates not smaller than a side of the training grid: their outer taps only meet padding, and answer untrained on larger images."""
    strides = dict(zip(("P2", "P3", "P4"), model.backbone.strides[1:], strict=True))
    parts = {name: (part, strides[name]) for name, part in _levels(model).items() if name in strides}
    if model.head is not None:
        parts["ASPP"] = (model.head, model.backbone.strides[3])
    warnings = []
    for name, (part, stride) in parts.items():
        if not isinstance(part, SeEM | ASPP):
            continue
        grid = (ceil(crop[0] / stride), ceil(crop[1] / stride))
        dead = [str(rate) for rate in part.rates if rate >= min(grid)]
        if dead:
            warnings.append(f"{name}: rates {', '.join(dead)} on a {grid[0]}x{grid[1]} grid never see data off their centre")
    return warnings


TRIED = ("resnet18", "resnet50", "resnet101", "tf_efficientnet_lite0", "mobilenetv3_small_050", "convnext_atto", "regnetx_002")


def catalogue() -> dict[str, list[str]]:
    """What there is to choose from: variants, backbones that the tests build, bundled models."""
    return {
        "variants": [f"{name} ({variant.rows})" for name, variant in VARIANTS.items()],
        "backbones tried": list(TRIED),
        "bundled models": sorted(bundled_models()) or ["none"],
    }


def summary_of(variant: str, backbone: str, classes: int, size: int, options: dict[str, Any]) -> list[Part]:
    """The parts of a network that is described, not built in memory; UsageError as `create_model`, and for options named twice."""
    for name, instead in (("variant", "the argument VARIANT"), ("backbone", "--backbone"), ("num_classes", "--classes")):
        if name in options:
            raise UsageError(f"{name}={options[name]}: give it by {instead}")
    with torch.device("meta"):
        return summarize(create_model(variant, backbone=backbone, num_classes=classes, **options), size, size)


def parts_table(parts: list[Part]) -> str:
    """One line a part, and the sum."""
    lines = [f"{'part':<10} {'output':>18} {'parameters':>12} {'GFLOP':>9}"]
    for part in parts:
        shape = " x ".join(map(str, part.shape))
        lines.append(f"{part.name:<10} {shape:>18} {part.parameters:>12,} {part.flops / 1e9:>9.2f}")
    lines.append(f"{'sum':<10} {'':>18} {sum(part.parameters for part in parts):>12,} {sum(part.flops for part in parts) / 1e9:>9.2f}")
    return "\n".join(lines)
