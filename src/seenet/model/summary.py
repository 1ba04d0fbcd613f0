"""What a network consists of and costs, how far it looks, and which of its taps a crop never feeds."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakTensorKeyDictionary

from seenet.core.errors import UsageError
from seenet.core.find import bundled_models
from seenet.model import PEERS, PeerNetwork, SeENet, Segmenter, StageProbe, create_model
from seenet.model.backbone import Backbone
from seenet.model.seenet import ASPP, VARIANTS, SeEM

aten: Any = torch.ops.aten

Hull = tuple[np.ndarray, np.ndarray]
"""First and last input row (or column) that each row (column) of a grid depends on; first > last where there is none."""

NOWHERE = 1 << 40
FLAT = -1


@dataclass(frozen=True)
class ReceptiveField:
    """`radius`: pixels, by rows or columns, to the farthest one that a score depends on; infinite for the `reason` given."""

    radius: float
    reason: str = ""

    def __str__(self) -> str:
        return f"infinite: {self.reason}" if math.isinf(self.radius) else f"{self.radius:.0f} pixels"


@dataclass(frozen=True)
class _Reach:
    """Of a tensor: which of its axes are rows, with columns after it (FLAT: one axis is both), and the hulls of both."""

    axis: int
    hulls: tuple[Hull, ...]

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(len(first) for first, _ in self.hulls)


class _Whole(Exception):
    """An operation that takes in the whole picture, or of which nothing is known."""

    def __init__(self, name: str) -> None:
        known = "takes in the whole picture" if name in GLOBAL else "is taken to look at the whole picture, since its reach is not known"
        super().__init__(f"{name} {known}")


def receptive_field(model: Segmenter, side: int = 1024) -> ReceptiveField:
    """Of a network in eval mode, on a square picture of `side` (a multiple of 32), twice as large until no border cuts it off.

    The theoretical one: every tap of a kernel counts, whatever its weight; padding does not. Nothing is computed: the pass runs on
    torch's meta device. Not in it: where the strides do not divide a picture's sides, resized grids move, by less than a point of theirs.
    """
    twin = copy.deepcopy(model).to("meta", torch.float32).eval()
    while True:
        image = torch.zeros(1, model.options["in_channels"], side, side, device="meta", dtype=torch.float32)
        try:
            with torch.no_grad(), _Tracing(image) as tracing:
                reach = tracing.reaches[twin(image)]
        except _Whole as error:
            return ReceptiveField(math.inf, str(error))
        except Exception as error:  # of a network of the user's own, which may need real numbers
            return ReceptiveField(math.inf, f"the network cannot be followed ({type(error).__name__}), and may look at the whole picture")
        here = np.arange(side)
        radius = max(int(max((here - first).max(), (last - here).max())) for first, last in reach.hulls)
        # Half a picture away from the middle no border has cut it off.
        if radius < side // 2:
            return ReceptiveField(radius)
        side *= 2


class _Tracing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the hulls of `image` through every operation."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reaches: Any = WeakTensorKeyDictionary()
        self.reaches[image] = _Reach(2, tuple((np.arange(side), np.arange(side)) for side in image.shape[-2:]))

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        flat = [item for arg in args for item in (arg if isinstance(arg, list | tuple) else [arg])]
        sources = [self.reaches[item] for item in flat if isinstance(item, Tensor) and item in self.reaches]
        # What else an operation gives (where a maximum stood, a batch's statistics) no network here goes on with.
        first = out[0] if isinstance(out, tuple) else out
        if sources and isinstance(first, Tensor):
            named = {argument.name: argument.default_value for argument in func._schema.arguments if argument.has_default_value()}
            named |= {argument.name: arg for argument, arg in zip(func._schema.arguments, args, strict=False)} | (kwargs or {})
            self.reaches[first] = _follow(func, sources, named, first)
        return out


def _follow(func: Any, sources: list[_Reach], named: dict[str, Any], out: Tensor) -> _Reach:
    name = func.overloadpacket.__name__
    if torch.Tag.pointwise in func.tags or name in KEEPING:
        return _united(name, sources, out)
    if name not in RULES or (sources[0].axis != 2 and name not in MOVING):
        raise _Whole(name)
    return RULES[name](sources[0], named, out)


def _united(name: str, sources: list[_Reach], out: Tensor) -> _Reach:
    """Of an operation between points of one place: their axes must stand alike, and stay."""
    first = sources[0]
    stays = first.axis == FLAT or tuple(out.shape[first.axis : first.axis + 2]) == first.size
    if not stays or any(source.axis != first.axis or source.size != first.size for source in sources):
        raise _Whole(name)
    pairs = [list(zip(*each, strict=True)) for each in zip(*(source.hulls for source in sources), strict=True)]
    return _Reach(first.axis, tuple((np.minimum.reduce(firsts), np.maximum.reduce(lasts)) for firsts, lasts in pairs))


def _taken(hull: Hull, taps: np.ndarray) -> Hull:
    """Of an axis whose point i depends on points taps[i, :] of this one; taps outside are padding."""
    first, last = hull
    inside = (taps >= 0) & (taps < len(first))
    safe = np.where(inside, taps, 0)
    return np.where(inside, first[safe], NOWHERE).min(1), np.where(inside, last[safe], -NOWHERE).max(1)


def _windows(reach: _Reach, named: dict[str, Any], out: Tensor) -> _Reach:
    """Convolutions and pooling."""
    if named.get("transposed"):
        raise _Whole("a transposed convolution")
    kernel = list(named["weight"].shape[2:]) if "weight" in named else _pair(named["kernel_size"])
    strides = _pair(named["stride"] or kernel)
    hulls = []
    for axis, hull in enumerate(reach.hulls):
        steps = np.arange(out.shape[2 + axis])[:, None] * strides[axis] - _pair(named["padding"])[axis]
        hulls.append(_taken(hull, steps + _pair(named.get("dilation", 1))[axis] * np.arange(kernel[axis])))
    return _Reach(2, tuple(hulls))


def _pair(value: int | list[int]) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


def _bilinear(reach: _Reach, named: dict[str, Any], out: Tensor) -> _Reach:
    hulls = []
    for hull, points in zip(reach.hulls, out.shape[2:], strict=True):
        count, place = len(hull[0]), np.arange(points)
        corners = place * (count - 1) / max(points - 1, 1)
        where = corners if named["align_corners"] else ((place + 0.5) * count / points - 0.5).clip(0, count - 1)
        hulls.append(_taken(hull, np.stack([np.floor(where), np.ceil(where)], 1).astype(int)))
    return _Reach(2, tuple(hulls))


def _nearest(reach: _Reach, named: dict[str, Any], out: Tensor) -> _Reach:
    sides = zip(reach.hulls, out.shape[2:], strict=True)
    return _Reach(2, tuple(_taken(hull, (np.arange(points) * len(hull[0]) // points)[:, None]) for hull, points in sides))


def _padded(reach: _Reach, named: dict[str, Any], out: Tensor) -> _Reach:
    left, _, top, _ = (*named["pad"], 0, 0)[:4]
    sides = zip(reach.hulls, out.shape[2:], (top, left), strict=True)
    return _Reach(2, tuple(_taken(hull, np.arange(points)[:, None] - before) for hull, points, before in sides))


def _sliced(reach: _Reach, named: dict[str, Any], out: Tensor) -> _Reach:
    axis, start = named["dim"] % out.dim(), named["start"] or 0
    hulls = list(reach.hulls)
    if axis >= 2:
        start += len(hulls[axis - 2][0]) if start < 0 else 0
        hulls[axis - 2] = _taken(hulls[axis - 2], (start + named["step"] * np.arange(out.shape[axis]))[:, None])
    return _Reach(2, tuple(hulls))


def _permuted(reach: _Reach, named: dict[str, Any], out: Tensor) -> _Reach:
    order = [axis % out.dim() for axis in named["dims"]]
    axis = order.index(reach.axis)
    if order[axis + 1 :][:1] != [reach.axis + 1]:
        raise _Whole("permute")
    return _Reach(axis, reach.hulls)


def _layer_norm(reach: _Reach, named: dict[str, Any], out: Tensor) -> _Reach:
    if out.dim() - len(named["normalized_shape"]) < reach.axis + 2:
        raise _Whole("native_layer_norm")
    return reach


def _viewed(reach: _Reach, named: dict[str, Any], out: Tensor) -> _Reach:
    """N x h x w x C as points x C and back, which is how a linear map takes it."""
    rows, columns = reach.size
    if reach.axis == 1 and out.dim() == 2 and out.shape[0] == rows * columns:
        return _Reach(FLAT, reach.hulls)
    if reach.axis == FLAT and tuple(out.shape[:3]) == (1, rows, columns):
        return _Reach(1, reach.hulls)
    raise _Whole("view")


KEEPING = {
    "native_batch_norm", "_native_batch_norm_legit_no_training", "cat", "hardswish", "hardswish_", "alias", "clone", "_to_copy", "detach",
    "addmm", "mm",
}  # fmt: skip
"""Operations between points of one place that torch does not mark so. Batch norm is in eval mode; `cat` along rows keeps no size."""

Rule = Callable[[_Reach, dict[str, Any], Tensor], _Reach]
RULES: dict[str, Rule] = {
    "convolution": _windows, "max_pool2d_with_indices": _windows, "avg_pool2d": _windows, "upsample_bilinear2d": _bilinear,
    "upsample_nearest2d": _nearest, "constant_pad_nd": _padded, "slice": _sliced,
    "permute": _permuted, "native_layer_norm": _layer_norm, "view": _viewed, "_unsafe_view": _viewed,
}  # fmt: skip
MOVING = {"permute", "native_layer_norm", "view", "_unsafe_view"}
"""Rules for tensors whose rows and columns need not be the last axes."""
GLOBAL = {"mean", "_adaptive_avg_pool2d", "native_group_norm", "linalg_vector_norm", "var_mean", "sum"}


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
