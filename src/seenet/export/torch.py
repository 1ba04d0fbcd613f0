"""The network as a torch program: from pictures as bytes to classes, traced for any batch and size; and files of torch's.

Every bundle begins with the trace. A .pt2 archive is the program itself; a .safetensors at half the size is the model's
own file with matrices and kernels in fp16, which every reader casts back.
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from timm.layers import padding
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.nn import functional
from torch.utils._sympy.value_ranges import ValueRanges

from seenet.core.errors import CheckError, DataError
from seenet.core.files import check_free, replacing
from seenet.model.files import load_model, save_model
from seenet.model.segmenter import Segmenter
from seenet.prediction.bundle import Card
from seenet.prediction.torch_file import CARD

TRACED = (2, 101, 75)
"""Batch, height and width of the example: two, since one would be taken for a constant, and sides that nothing divides."""
LARGEST_ERROR = 2.0**-10
"""Of a weight, relative to the largest of its tensor; fp16 keeps 11 bits."""


class Deployed(nn.Module):
    """images N x H x W x C uint8 RGB -> class map N x H x W (uint8, int32 over 256 classes) and scores N x K x H x W float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model
        mean, std = (torch.tensor(values).mul(255)[:, None, None] for values in (model.normalization.mean, model.normalization.std))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.ids = torch.uint8 if model.num_classes <= 256 else torch.int32

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.permute(0, 3, 1, 2).float().sub(self.mean).div(self.std)
        scores = self.model(pixels)
        return scores.argmax(1).to(self.ids), scores


def trace(model: Segmenter) -> ExportedProgram:
    """The program of a model in eval mode, for every batch, height and width from 1.

    Raises DataError where the network asks for its sizes in Python in a way that cannot be traced (a network of `model.factory` may).
    """
    deployed = Deployed(model).eval()
    any_size = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC}
    try:
        with torch.no_grad(), _portable():
            program = torch.export.export(
                deployed, (torch.zeros(*TRACED, len(model.normalization.mean), dtype=torch.uint8),), dynamic_shapes=(any_size,)
            )
    except Exception as error:  # whatever a network raises that torch cannot follow
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"the network cannot be exported: torch.export stops with {type(error).__name__}: {reason}") from error
    _from_one(program)
    return program


@contextmanager
def _portable() -> Iterator[None]:
    """Three functions as every runtime understands them at every size; the values stay.

    TensorFlow's padding with whole numbers alone, since torch loses itself in timm's, which goes by a float and a maximum: for an effective
    kernel K at stride s, max((ceil(x / s) - 1) s + K - x, 0) = K - s + (-x mod s) where K >= s. The mean of 2x2 where an odd side's last
    points stand alone: beside a copy of themselves they have the same mean, and OpenVINO has no kernel larger than its input. Means over
    n x n parts, which ONNX knows for sizes in the graph alone, as means over rows, then over columns.
    """
    same_padding, avg_pool2d, adaptive = padding.get_same_padding, functional.avg_pool2d, functional.adaptive_avg_pool2d

    def plain(x: int, kernel: int, stride: int, dilation: int) -> int:
        span = (kernel - 1) * dilation + 1
        return span - stride + -x % stride if span >= stride else same_padding(x, kernel, stride, dilation)

    def doubled(x: Tensor, kernel_size: Any, stride: Any = None, *more: Any, **named: Any) -> Tensor:
        around, ceil_mode, counted, divisor = _pooling(*more, **named)
        pairs = _pair(kernel_size) == _pair(stride or kernel_size) == (2, 2) and _pair(around) == (0, 0)
        if pairs and ceil_mode and not counted and not divisor:
            return avg_pool2d(functional.pad(x, (0, 1, 0, 1), mode="replicate"), 2)
        return avg_pool2d(x, kernel_size, stride, around, ceil_mode, counted, divisor)

    def by_axis(x: Tensor, output_size: Any) -> Tensor:
        sides = _pair(output_size)
        if None in sides or sides == (1, 1):
            return adaptive(x, output_size)
        for axis, parts in zip((-2, -1), sides, strict=True):
            side = x.shape[axis]
            # Part i goes from floor(i side / n) to ceil((i + 1) side / n); nothing negative, which ONNX divides towards zero.
            slices = [(i * side // parts, ((i + 1) * side + parts - 1) // parts) for i in range(parts)]
            x = torch.cat([x.transpose(axis, -1)[..., start:end].mean(-1, keepdim=True) for start, end in slices], -1).transpose(axis, -1)
        return x

    padding.get_same_padding, functional.avg_pool2d = plain, doubled  # type: ignore[assignment]
    functional.adaptive_avg_pool2d = by_axis  # type: ignore[assignment]
    try:
        yield
    finally:
        padding.get_same_padding, functional.avg_pool2d = same_padding, avg_pool2d
        functional.adaptive_avg_pool2d = adaptive


def _pooling(
    padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None
) -> tuple[Any, bool, bool, int | None]:
    """The rest of `avg_pool2d`'s arguments, as it names and orders them."""
    return padding, ceil_mode, count_include_pad, divisor_override


def _pair(value: Any) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _from_one(program: ExportedProgram) -> None:
    """Let every size from 1 in. torch notes the sizes from which on it can prove its own branches (9, 17); the graph has no branches, and
    `verify` runs it below them.
    """
    for node in list(program.graph.nodes):
        if node.op == "call_function" and str(node.target).startswith(("aten._assert_", "aten.sym_constrain_range")):
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    for symbol, found in program.range_constraints.items():
        program.range_constraints[symbol] = ValueRanges(1, found.upper)
    program._guards_code = []


def write(path: Path, model: Segmenter, card: Card, **_: object) -> None:
    """Write a model as a .pt2; it is traced as it stands, whatever the other options are."""
    write_torch(path, trace(model), card)


def write_torch(path: Path, program: ExportedProgram, card: Card) -> None:
    """Write `program` with its card; without the example it was traced on, which torch would pickle, and without this machine's paths."""
    program.example_inputs = None
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            node.meta.pop("stack_trace", None)
    stream = io.BytesIO()
    # To a stream: a file's name would stand inside.
    torch.export.save(program, stream, extra_files={CARD: card.text()})
    path.write_bytes(stream.getvalue())


def export_half(model: str | Path, out: Path, *, overwrite: bool = False) -> float:
    """Write `out` from a run, file or bundled name; returns the largest error of a weight, relative to the largest of its tensor.

    The file is read back before it gets its name. Raises DataError: no such model, `out` exists (without `overwrite`) or is no
    .safetensors; CheckError: weights too large for fp16.
    """
    if out.suffix != ".safetensors":
        raise DataError(f"{out}: found suffix {out.suffix!r}, expected .safetensors; other files need --format onnx, openvino or torch")
    check_free([out], overwrite=overwrite)
    saved = load_model(model)
    with replacing(out) as temporary:
        save_model(temporary, saved.model, saved.labels, notes={**saved.notes, "fp16_of": saved.sha256}, half=True)
        read_back = load_model(temporary).model.state_dict()
        errors = [_error(value, read_back[key]) for key, value in saved.model.state_dict().items()]
        # Of numbers and NaN, max takes whichever it likes.
        error = max(errors, key=lambda value: math.inf if math.isnan(value) else value)
        if not error <= LARGEST_ERROR:
            raise CheckError(
                f"{saved.path}: a weight changes by {error:.2g} of its tensor in fp16, expected {LARGEST_ERROR:.2g} at most; keep it"
            )
    return error


def _error(before: torch.Tensor, after: torch.Tensor) -> float:
    if not before.is_floating_point():
        return 0.0
    return float((after - before).abs().max() / before.abs().max().clamp(min=torch.finfo(torch.float32).tiny))
