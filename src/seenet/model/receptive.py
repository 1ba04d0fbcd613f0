"""How far a network looks: the input pixels that one of its scores can depend on, worked out operation by operation."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from seenet.model.segmenter import Segmenter

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
