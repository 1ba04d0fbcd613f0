"""A network's parts and costs, its receptive field, and the taps that a crop never feeds."""

import copy
import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakTensorKeyDictionary

from seenet.core.errors import UsageError
from seenet.core.files import bundled_models
from seenet.model import PEERS, PeerNetwork, SeENet, Segmenter, StageProbe, create_model
from seenet.model.backbone import Backbone
from seenet.model.seenet import ASPP, VARIANTS, SeEM


@dataclass(frozen=True)
class ReceptiveField:
    """Pixels, by rows or columns, to the farthest one that a score depends on.

    Infinite for the `reason` given.
    """

    radius: float
    reason: str = ""

    def __str__(self) -> str:
        return f"infinite: {self.reason}" if math.isinf(self.radius) else f"{self.radius:.0f} pixels"


@dataclass(frozen=True)
class Part:
    """A part's output shape (C, h, w) for one image, parameters and FLOPs (2 a multiply-add)."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    flops: int


@dataclass(frozen=True)
class Summary:
    """Parts and receptive field of a network, as `seenet model` shows them."""

    parts: list[Part]
    field: ReceptiveField

    def result(self) -> dict[str, Any]:
        """Return JSON values; `receptive_radius` in pixels, null where it is infinite."""
        radius = None if math.isinf(self.field.radius) else int(self.field.radius)
        return {"parts": [asdict(part) for part in self.parts], "receptive_radius": radius}

    def table(self) -> str:
        """Return a line a part, their sum, and the receptive radius."""
        lines = [f"{'part':<10} {'output':>18} {'parameters':>12} {'GFLOP':>9}"]
        for part in self.parts:
            shape = " x ".join(map(str, part.shape))
            lines.append(f"{part.name:<10} {shape:>18} {part.parameters:>12,} {part.flops / 1e9:>9.2f}")
        parameters, flops = sum(part.parameters for part in self.parts), sum(part.flops for part in self.parts)
        lines.append(f"{'sum':<10} {'':>18} {parameters:>12,} {flops / 1e9:>9.2f}")
        return "\n".join([*lines, f"receptive radius: {self.field}"])


def summarize(model: Segmenter, height: int, width: int) -> list[Part]:
    """Count parameters and FLOPs of B1 to B4, the pyramid's levels, P_out and logits.

    For one image of height x width, on torch's meta device: nothing is computed. Modules between
    two named tensors count for the later one; the last part, logits, holds the refinement, and of
    peers all that stands on the backbone. A network of `model.factory` is one part.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    flops: dict[nn.Module, int] = {}

    def count(module: nn.Conv2d | nn.Linear, _: tuple[Tensor, ...], output: Tensor) -> None:
        # A kernel is O x C / groups x h x w, a matrix O x C: a point takes all of it but the O.
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
    """Name rates not smaller than a side of the training grid, a warning a part.

    Their outer taps only meet padding, and answer untrained on larger images.
    """
    warnings = []
    for name, rates, stride in _dilated(model):
        grid = (ceil(crop[0] / stride), ceil(crop[1] / stride))
        dead = [str(rate) for rate in rates if rate >= min(grid)]
        if dead:
            warnings.append(f"{name}: rates {', '.join(dead)} on a {grid[0]}x{grid[1]} grid never see data off their centre")
    return warnings


def _dilated(model: Segmenter) -> list[tuple[str, Sequence[int], int]]:
    """List name, rates and grid stride of each part with atrous convolutions on the backbone."""
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
    """List what there is to choose from: variants, backbones that the tests build, models."""
    return {
        "variants": [f"{name} ({variant.rows})" for name, variant in VARIANTS.items()],
        "peers": list(PEERS),
        "backbones tried": list(TRIED),
        "bundled models": sorted(bundled_models()) or ["none"],
    }


def summary_of(variant: str, backbone: str, classes: int, size: int, options: dict[str, Any]) -> Summary:
    """Summarize a network that is described, not built in memory.

    Raises UsageError as `create_model` does, and for options named twice.
    """
    for name, instead in (("variant", "the argument VARIANT"), ("backbone", "--backbone"), ("num_classes", "--classes")):
        if name in options:
            raise UsageError(f"{name}={options[name]}: give it by {instead}")
    with torch.device("meta"):
        model = create_model(variant, backbone=backbone, num_classes=classes, **options)
        parts = summarize(model, size, size)
    # Reaches are numbers, which the meta device has none of.
    return Summary(parts, receptive_field(model))


def receptive_field(model: Segmenter, side: int = 1024) -> ReceptiveField:
    """Work out the theoretical receptive field of a network in eval mode, operation by operation.

    Every tap of a kernel counts, whatever its weight; padding does not. Where strides do not divide
    a picture's sides, resized grids move by less than a point of theirs, which is not counted.

    Args:
        side: Of the first picture tried, a multiple of 32; doubled until no border cuts the field.
    """
    twin = copy.deepcopy(model).to("meta", torch.float32).eval()
    try:
        while (radius := max(_radius(twin, axis, side) for axis in (2, 3))) >= side // 2:
            side *= 2
    except _WholePictureError as error:
        return ReceptiveField(math.inf, str(error))
    except Exception as error:  # of a network of the user's own, which may need real numbers
        what = f"the network cannot be followed ({type(error).__name__})"
        return ReceptiveField(math.inf, f"{what}, and may look at the whole picture")
    return ReceptiveField(radius)


def _radius(twin: Segmenter, axis: int, side: int) -> int:
    """Return the radius along one axis, on a strip that is `side` long."""
    strip = (side, STRIP) if axis == 2 else (STRIP, side)
    here = torch.arange(side, dtype=torch.float32).view((-1, 1) if axis == 2 else (1, -1))
    itself = torch.stack([-here, here]).unsqueeze(1).expand(2, 1, *strip)
    image = torch.zeros(2, twin.options["in_channels"], *strip, device="meta")
    with torch.no_grad(), _Reaching(image, itself) as reaching:
        reach: Tensor = reaching.reaches[twin(image)]
    return int((reach - itself).max())


STRIP = 128
"""So wide that even at stride 64 nothing but its channels is one."""
GLOBAL = {"mean", "_adaptive_avg_pool2d", "native_group_norm", "linalg_vector_norm", "var_mean", "sum"}
POINTWISE = {
    "native_batch_norm", "_native_batch_norm_legit_no_training", "hardswish", "hardswish_", "alias", "clone", "_to_copy", "detach",
}  # fmt: skip
"""Operations at each point that torch does not mark as such; batch norm is in eval mode."""
ON_CHANNELS_LAST = {"native_layer_norm", "addmm", "mm", "view", "_unsafe_view"}
WINDOWS = {"convolution", "max_pool2d_with_indices", "avg_pool2d"}


class _WholePictureError(Exception):
    """An operation takes in the whole picture, or its reach is not known."""

    def __init__(self, name: str) -> None:
        unknown = "is taken to look at the whole picture, since its reach is not known"
        super().__init__(f"{name} {'takes in the whole picture' if name in GLOBAL else unknown}")


class _Reaching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keep a reach beside each tensor of a pass on torch's meta device, where nothing is computed.

    A reach has the tensor's shape with one channel. Of its two pictures the second holds the last
    row (or column) of the input that a point depends on, the first minus the first one: the larger,
    the farther, so operations take the maximum over what they read, and padding is -inf.
    """

    def __init__(self, image: Tensor, reach: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reaches: Any = WeakTensorKeyDictionary()
        self.reaches[image] = reach

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        flat = [item for arg in args for item in (arg if isinstance(arg, list | tuple) else [arg])]
        sources = [self.reaches[item] for item in flat if isinstance(item, Tensor) and item in self.reaches]
        # Of several outputs (where a maximum stood, a batch's statistics) networks use the first.
        first = out[0] if isinstance(out, tuple) else out
        if sources and isinstance(first, Tensor):
            named = {one.name: one.default_value for one in func._schema.arguments}
            named |= dict(zip(named, args, strict=False)) | (kwargs or {})
            self.reaches[first] = _reach(func, sources, args, named, list(first.shape))
        return out


def _reach(func: Any, sources: list[Tensor], args: Any, named: dict[str, Any], shape: list[int]) -> Tensor:
    """Return the reach of an operation's output, of this shape, by those of its inputs."""
    name, x = func.overloadpacket.__name__, sources[0]
    if torch.Tag.pointwise in func.tags or name in POINTWISE or (name == "cat" and x.shape[named["dim"]] == 1):
        return functools.reduce(torch.maximum, sources)
    if name in WINDOWS and not named.get("transposed"):
        kernel = list(named["weight"].shape[2:]) if "weight" in named else named["kernel_size"]
        down, right = (list(named["padding"]) * 2)[:2]
        stride = named["stride"] or kernel
        # More at the far ends than `ceil_mode` may need, and cut to what the operation gives.
        below, behind = down + max(stride), right + max(stride)
        padded = F.pad(x, (right, behind, down, below), value=-math.inf)
        pooled = F.max_pool2d(padded, kernel, stride, 0, named.get("dilation", 1))
        return pooled[..., : shape[2], : shape[3]]
    if name == "upsample_bilinear2d":
        for axis in (2, 3):
            points = torch.arange(x.shape[axis], dtype=torch.float64).view(1, 1, -1)
            where = F.interpolate(points, shape[axis], mode="linear", align_corners=named["align_corners"])
            # Where a point meets one of the grid exactly, rounding must not make it two.
            where = where.flatten().round(decimals=6)
            ends = (where.floor().long(), where.ceil().long())
            x = torch.maximum(x.index_select(axis, ends[0]), x.index_select(axis, ends[1]))
        return x
    normalized = named["normalized_shape"] if name == "native_layer_norm" else [1]
    if name in ON_CHANNELS_LAST and x.shape[-1] == len(normalized) == 1:
        return x.reshape(*shape[:-1], 1)
    if name == "constant_pad_nd":
        return F.pad(x, named["pad"], value=-math.inf)
    if name == "slice" and x.shape[named["dim"]] == 1:
        return x
    if name in ("permute", "upsample_nearest2d", "slice"):
        moved: Tensor = func(x, *args[1:])
        return moved
    raise _WholePictureError(name)
