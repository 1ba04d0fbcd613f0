"""The theoretical receptive field of a network, computed operation by operation."""

import copy
import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from seenet.model.segmenter import Segmenter


@dataclass(frozen=True)
class ReceptiveField:
    """Receptive field of a network's scores.

    Attributes:
        radius: Pixels, along rows or columns, to the farthest one that a score depends on.
        reason: Why the radius is infinite.
    """

    radius: float
    reason: str = ""

    def __str__(self) -> str:
        if math.isinf(self.radius):
            return f"infinite: {self.reason}"
        return f"{self.radius:.0f} pixels"


def receptive_field(model: Segmenter, side: int = 1024) -> ReceptiveField:
    """Compute the theoretical receptive field of a network in eval mode.

    Every tap of a kernel counts, whatever its weight; padding does not. Where the strides do not
    divide the sides of an image, resized grids shift by less than one of their points, which is
    not counted.

    Args:
        side: Side of the first image that is tried, a multiple of 32; it is doubled until the
            field fits.
    """
    twin = copy.deepcopy(model).to("meta", torch.float32).eval()
    try:
        while (radius := max(_radius(twin, axis, side) for axis in (2, 3))) >= side // 2:
            side *= 2
    except _WholeImageError as error:
        return ReceptiveField(math.inf, str(error))
    except Exception as error:  # a user's network may need real numbers, for example
        reason = f"the network cannot be followed ({type(error).__name__})"
        return ReceptiveField(math.inf, f"{reason}, and may look at the whole picture")
    return ReceptiveField(radius)


def _radius(twin: Segmenter, axis: int, side: int) -> int:
    """Return the radius along one axis, from a pass over a strip of this length."""
    strip = (side, STRIP) if axis == 2 else (STRIP, side)
    position = torch.arange(side, dtype=torch.float32).view((-1, 1) if axis == 2 else (1, -1))
    own = torch.stack([-position, position]).unsqueeze(1).expand(2, 1, *strip)
    image = torch.zeros(2, twin.options["in_channels"], *strip, device="meta")
    with torch.no_grad(), _ExtentMode(image, own) as mode:
        extent: Tensor = mode.extents[twin(image)]
    return int((extent - own).max())


STRIP = 128
"""Width of a strip: even at stride 64 a tensor has no dimension of 1 but its channels."""
GLOBAL = {
    "mean",
    "_adaptive_avg_pool2d",
    "native_group_norm",
    "linalg_vector_norm",
    "var_mean",
    "sum",
}
POINTWISE = {
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "hardswish",
    "hardswish_",
    "alias",
    "clone",
    "_to_copy",
    "detach",
}
"""Pointwise operations that torch does not tag as such; batch norm is in eval mode."""
ON_CHANNELS_LAST = {"native_layer_norm", "addmm", "mm", "view", "_unsafe_view"}
WINDOWS = {"convolution", "max_pool2d_with_indices", "avg_pool2d"}


class _WholeImageError(Exception):
    """An operation reads the whole image, or its receptive field is not known."""


class _ExtentMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keep the extent of each tensor of a pass on torch's meta device, where nothing is computed.

    The extent of a tensor has its shape, with two images and one channel: for each point minus the
    first and the last row (or column) of the input that the point depends on. Larger is farther in
    both, so an operation takes the maximum over what it reads, and padding is -inf.
    """

    def __init__(self, image: Tensor, extent: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.extents: Any = WeakTensorKeyDictionary()
        self.extents[image] = extent

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        flat = [item for arg in args for item in (arg if isinstance(arg, list | tuple) else [arg])]
        inputs = [
            self.extents[item] for item in flat if isinstance(item, Tensor) and item in self.extents
        ]
        # Of several outputs (indices of the maximum, batch statistics) only the first is used.
        first = out[0] if isinstance(out, tuple) else out
        if inputs and isinstance(first, Tensor):
            named = {one.name: one.default_value for one in func._schema.arguments}
            named |= dict(zip(named, args, strict=False)) | (kwargs or {})
            self.extents[first] = _extent(func, inputs, args, named, list(first.shape))
        return out


def _extent(
    func: Any, inputs: list[Tensor], args: Any, named: dict[str, Any], shape: list[int]
) -> Tensor:
    """Return the extent of an operation's output, of this shape, from those of its inputs."""
    name, x = func.overloadpacket.__name__, inputs[0]
    if (
        torch.Tag.pointwise in func.tags
        or name in POINTWISE
        or (name == "cat" and x.shape[named["dim"]] == 1)
    ):
        return functools.reduce(torch.maximum, inputs)
    if name in WINDOWS and not named.get("transposed"):
        kernel = list(named["weight"].shape[2:]) if "weight" in named else named["kernel_size"]
        top, left = (list(named["padding"]) * 2)[:2]
        stride = named["stride"] or kernel
        # Enough at the far ends for `ceil_mode`; then cut to the size of the operation's output.
        bottom, right = top + max(stride), left + max(stride)
        padded = F.pad(x, (left, right, top, bottom), value=-math.inf)
        pooled = F.max_pool2d(padded, kernel, stride, 0, named.get("dilation", 1))
        return pooled[..., : shape[2], : shape[3]]
    if name == "upsample_bilinear2d":
        for axis in (2, 3):
            points = torch.arange(x.shape[axis], dtype=torch.float64).view(1, 1, -1)
            source = F.interpolate(
                points, shape[axis], mode="linear", align_corners=named["align_corners"]
            )
            # Rounding must not make two points of one that meets the grid exactly.
            source = source.flatten().round(decimals=6)
            lower, upper = source.floor().long(), source.ceil().long()
            x = torch.maximum(x.index_select(axis, lower), x.index_select(axis, upper))
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
    if name in GLOBAL:
        raise _WholeImageError(f"{name} takes in the whole picture")
    raise _WholeImageError(
        f"the receptive field of {name} is not known, and may be the whole picture"
    )
