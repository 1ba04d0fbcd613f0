"""Trace a network as a torch program for any batch and size, and write it in torch's formats.

Every bundle begins with the trace, from pictures as bytes to classes. A .pt2 archive is the program
itself; an fp16 .safetensors is the model's own file at half the size, which every reader casts
back.
"""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._sympy.value_ranges import ValueRanges

from seenet.core.errors import CheckError, DataError
from seenet.core.files import check_free, replacing
from seenet.model.fast.folded import pad_same
from seenet.model.files import load_model, save_model
from seenet.model.segmenter import Segmenter
from seenet.prediction.bundles.bundle import KEY, Card, Opened, parse_card

CARD = f"{KEY}.json"
"""Path of the card in a .pt2 archive."""
TRACED = (2, 101, 75)
"""Batch, height and width of the example: a batch of one would become a constant, and the sides are
divisible by no stride.
"""
LARGEST_ERROR = 2.0**-10
"""Error of a weight in fp16, relative to the largest of its tensor; fp16 keeps 11 bits."""


class Deployed(nn.Module):
    """Network from pictures as bytes to classes and scores.

    images N x H x W x C uint8 RGB -> class map N x H x W (uint8, int32 over 256 classes) and scores
    N x K x H x W float32.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model
        for name in ("mean", "std"):
            values = torch.tensor(getattr(model.normalization, name))
            self.register_buffer(name, values.mul(255)[:, None, None])
        self.ids = torch.uint8 if model.num_classes <= 256 else torch.int32

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.permute(0, 3, 1, 2).float().sub(self.mean).div(self.std)
        scores = self.model(pixels)
        return scores.argmax(1).to(self.ids), scores


def trace(model: Segmenter) -> ExportedProgram:
    """Trace a model in eval mode, for every batch, height and width from 1.

    Raises:
        DataError: The network cannot be traced: its Python code depends on values or sizes (a
            network of `model.factory` may do that).
    """
    deployed = Deployed(model).eval()
    any_size = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC}
    try:
        with torch.no_grad(), Portable(), whole_number_padding(model):
            program = torch.export.export(
                deployed,
                (torch.zeros(*TRACED, len(model.normalization.mean), dtype=torch.uint8),),
                dynamic_shapes=(any_size,),
            )
    except Exception as error:  # of a network that torch cannot follow
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            "the network cannot be exported: torch.export stops with "
            f"{type(error).__name__}: {reason}"
        ) from error
    _allow_small_sizes(program)
    return program


class Portable(TorchFunctionMode):
    """Replace two functions, in this thread alone, by forms that every runtime has at every size.

    The values are the same. In 2x2 means with ceil_mode an odd side is extended by a copy of its
    last points: OpenVINO has no kernel larger than its input. ONNX has means over n x n parts for
    constant sizes only, so they become means over rows, then over columns.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        replacements = {
            functional.avg_pool2d: _extended_avg_pool2d,
            functional.adaptive_avg_pool2d: _adaptive_by_axis,
        }
        return replacements.get(func, func)(*args, **(kwargs or {}))


def _extended_avg_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    pairs = _pair(kernel_size) == _pair(stride or kernel_size) == (2, 2)
    changed = _pair(padding) != (0, 0) or count_include_pad or divisor_override
    if pairs and ceil_mode and not changed:
        return functional.avg_pool2d(functional.pad(x, (0, 1, 0, 1), mode="replicate"), 2)
    return functional.avg_pool2d(
        x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _adaptive_by_axis(x: Tensor, output_size: Any) -> Tensor:
    sides = _pair(output_size)
    if None in sides or sides == (1, 1):
        return functional.adaptive_avg_pool2d(x, output_size)
    for axis, parts in zip((-2, -1), sides, strict=True):
        side, lines = x.shape[axis], x.transpose(axis, -1)
        # Part i is floor(i side / n) to ceil((i + 1) side / n), without negative numbers, which
        # ONNX divides towards zero.
        means = [
            lines[..., i * side // parts : ((i + 1) * side + parts - 1) // parts].mean(
                -1, keepdim=True
            )
            for i in range(parts)
        ]
        x = torch.cat(means, -1).transpose(axis, -1)
    return x


PADDED: dict[type[nn.Module], tuple[type[nn.Module], float]] = {
    Conv2dSame: (nn.Conv2d, 0.0),
    AvgPool2dSame: (nn.AvgPool2d, 0.0),
    MaxPool2dSame: (nn.MaxPool2d, -math.inf),
}
"""timm's layers with TensorFlow's padding: the layer without it, and the value that is padded."""


@contextmanager
def whole_number_padding(model: nn.Module) -> Iterator[None]:
    """Let layers with TensorFlow's padding compute it with whole numbers within the block.

    torch cannot trace timm's own formula, which uses a float and a maximum.
    """
    changed: list[Any] = []
    module: Any
    for module in model.modules():
        kind = next((kind for kind in PADDED if isinstance(module, kind)), None)
        # Convolutions with standardised weights pad where `same_pad` says so.
        standardised = kind is None and getattr(module, "same_pad", False)
        if kind is None and not standardised:
            continue
        plain, value = PADDED[kind] if kind else (type(module), 0.0)
        module.forward = partial(_pad_then, plain.forward, module, value)
        if standardised:
            module.same_pad = False
        changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward
            if "same_pad" in vars(module):
                module.same_pad = True


def _pad_then(forward: Callable[..., Tensor], module: Any, value: float, x: Tensor) -> Tensor:
    dilation = _pair(getattr(module, "dilation", 1))
    x = pad_same(x, _pair(module.kernel_size), _pair(module.stride), dilation, value)
    return forward(module, x)


def _pair(value: Any) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _allow_small_sizes(program: ExportedProgram) -> None:
    """Allow every size from 1.

    torch notes the sizes from which it can prove its own branches (9, 17); the graph has no
    branches, and `verify` runs it on smaller pictures.
    """
    for node in list(program.graph.nodes):
        if node.op == "call_function" and str(node.target).startswith(
            ("aten._assert_", "aten.sym_constrain_range")
        ):
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    for symbol, limits in program.range_constraints.items():
        program.range_constraints[symbol] = ValueRanges(1, limits.upper)
    program._guards_code = []


def write(path: Path, model: Segmenter, card: Card, **_: object) -> None:
    """Write a model as a .pt2; the other options of a format have no effect."""
    write_torch(path, trace(model), card)


def write_torch(path: Path, program: ExportedProgram, card: Card) -> None:
    """Write a program with its card, without the traced example, which torch would pickle, and
    without this machine's paths.
    """
    program.example_inputs = None
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            node.meta.pop("stack_trace", None)
    stream = io.BytesIO()
    # To a stream, since torch stores the name of a file.
    torch.export.save(program, stream, extra_files={CARD: card.text()})
    path.write_bytes(stream.getvalue())


def open_written(path: Path) -> Opened:
    """Open a file that `write_torch` has just written, to verify it.

    Never a file from elsewhere: torch's reader unpickles and evaluates its content.
    """
    extra = {CARD: ""}
    module = torch.export.load(path, extra_files=extra).module()

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            mask, scores = module(torch.from_numpy(images))
        return scores.numpy(), mask.numpy()

    card = parse_card(path, extra[CARD])
    return Opened(card, f"torch {torch.__version__}", card.precision, run)


def export_half(model: str | Path, out: Path, *, overwrite: bool = False) -> float:
    """Write a model as a .safetensors with weights in fp16, and read it back before it is renamed.

    Args:
        model: Run folder, model file or bundled name.
        out: The file.
        overwrite: Replace an existing file.

    Returns:
        The largest error of a weight, relative to the largest of its tensor.

    Raises:
        DataError: There is no such model, or `out` exists (without `overwrite`) or is not a
            .safetensors.
        CheckError: A weight is too large for fp16.
    """
    if out.suffix != ".safetensors":
        raise DataError(
            f"{out}: found suffix {out.suffix!r}, expected .safetensors; other files need --format "
            "onnx, openvino or torch"
        )
    check_free([out], overwrite=overwrite)
    saved = load_model(model)
    notes = {**saved.notes, "fp16_of": saved.sha256}
    with replacing(out) as temporary:
        save_model(temporary, saved.model, saved.labels, notes=notes, half=True)
        read_back = load_model(temporary).model.state_dict()
        errors = [_error(value, read_back[key]) for key, value in saved.model.state_dict().items()]
        # The maximum of numbers and NaN depends on their order.
        error = max(errors, key=lambda value: math.inf if math.isnan(value) else value)
        if not error <= LARGEST_ERROR:
            raise CheckError(
                f"{saved.path}: a weight changes by {error:.2g} of its tensor's largest in fp16, "
                f"expected at most {LARGEST_ERROR:.2g}; keep the file in fp32"
            )
    return error


def _error(before: Tensor, after: Tensor) -> float:
    if not before.is_floating_point():
        return 0.0
    largest = before.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((after - before).abs().max() / largest)
