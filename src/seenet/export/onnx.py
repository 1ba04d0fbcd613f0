"""Write a network as one ONNX file, with wide and long convolutions as matrix products.

For processors: Winograd's tiles replace 3x3 convolutions, Fourier's pieces r x 1 and 1 x r.
Runtimes have neither form, and save with them what prediction here saves (`seenet.model.fast`).
Points are gathered by an index computed from the sizes, so that memory is passed over once before
and once after the products. The graph itself transforms the kernels, which runtimes do once, as
they load it: the file holds the original weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch.export import ExportedProgram

from seenet.core.errors import DataError
from seenet.export.openvino import quantize
from seenet.export.torch import trace
from seenet.model.fast import fft_conv, winograd
from seenet.model.fast.prediction import prediction_form
from seenet.model.segmenter import Segmenter
from seenet.prediction.bundles.bundle import KEY, Card
from seenet.prediction.bundles.runtimes import ONNX_BYTES

OPSET = 20
AXES = {
    "images": ("batch", "height", "width"),
    "mask": ("batch", "height", "width"),
    "scores": ("batch", None, "height", "width"),
}
LEAST_CHANNELS = 128
"""Channels of a 3x3 below which moving the tiles costs more than the saved products. It is the same
whatever processor exports.
"""
PIECE = 16
"""Points that a piece of a line gives: few, so that little of the last one is outside the picture.
"""


def write(
    path: Path, model: Segmenter, card: Card, *, plain: bool, calibration: Sequence[np.ndarray]
) -> None:
    """Write a model as one .onnx; in INT8 if there are calibration pictures."""
    proto = model_proto(model, plain=plain or bool(calibration))
    if calibration:
        proto = quantize(proto, calibration)
        clean(proto)
    write_proto(path, proto, card)


def model_proto(model: Segmenter, *, plain: bool) -> Any:
    """Return an `onnx.ModelProto` of a model in eval mode, with its convolutions as they are or
    rewritten.
    """
    return to_proto(trace(model)) if plain else quick_proto(model)


def quick_proto(model: Segmenter) -> Any:
    """Return an `onnx.ModelProto` of a model in eval mode, folded as for prediction, rewritten."""
    folded: Any = prediction_form(model, "plain")
    proto = to_proto(trace(folded))
    rewrite(proto)
    return proto


def to_proto(program: ExportedProgram) -> Any:
    """Convert a program to an `onnx.ModelProto` without traces of when, where and by whom it was
    made.
    """
    converted = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["mask", "scores"],
        verbose=False,
        external_data=False,
    )
    assert converted is not None
    proto: Any = converted.model_proto
    clean(proto)
    return proto


def clean(proto: Any) -> None:
    """Delete stack traces, paths and intermediate shapes, and name the axes."""
    graph, ends = proto.graph, (*proto.graph.input, *proto.graph.output)
    parts = [proto, *graph.initializer, *ends]
    for one in (graph, *proto.functions):
        del one.value_info[:]
        parts += [one, *one.node]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    for value in ends:
        for side, name in zip(value.type.tensor_type.shape.dim, AXES[value.name], strict=False):
            if name:
                side.dim_param = name


def write_proto(path: Path, proto: Any, card: Card) -> None:
    """Write an `onnx.ModelProto` with its card; raise DataError if it is too large for ONNX."""
    helper.set_model_props(proto, {KEY: card.text()})
    if proto.ByteSize() > ONNX_BYTES:
        raise DataError(
            f"{path.name}: the network takes {proto.ByteSize()} bytes, expected at most "
            f"{ONNX_BYTES} for ONNX; use --format openvino"
        )
    path.write_bytes(proto.SerializeToString(deterministic=True))


class Value:
    """Output of a node. Operators on it add nodes; whole numbers become int64."""

    def __init__(self, graph: "Graph", name: str) -> None:
        self.graph, self.name = graph, name

    def __add__(self, other: Any) -> "Value":
        return self.graph.add("Add", self, other)

    def __mul__(self, other: Any) -> "Value":
        return self.graph.add("Mul", self, other)

    def __floordiv__(self, other: Any) -> "Value":
        """Divide numbers that are not negative: ONNX rounds towards zero."""
        return self.graph.add("Div", self, other)

    def __mod__(self, other: Any) -> "Value":
        return self.graph.add("Mod", self, other)

    def __matmul__(self, other: Any) -> "Value":
        return self.graph.add("MatMul", self, other)

    def reshape(self, *sides: Any) -> "Value":
        """Reshape to sides that are numbers (one may be -1) or values of one element."""
        shape = self.graph.add("Concat", *(self.graph.value(side) for side in sides), axis=0)
        return self.graph.add("Reshape", self, shape)

    def permute(self, *order: int) -> "Value":
        return self.graph.add("Transpose", self, perm=order)

    def within(self, side: Any) -> "Value":
        """Return where 0 <= self < side."""
        return self.graph.add(
            "And", self.graph.add("GreaterOrEqual", self, 0), self.graph.add("Less", self, side)
        )


class Graph:
    """Nodes that replace one node, and their constants."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, kind: str, *inputs: Any, **attributes: Any) -> Value:
        """Add a node and return its output; numbers and arrays as inputs become constants."""
        name = f"{self.prefix}/{kind}_{len(self.nodes)}"
        names = [self.value(one).name for one in inputs]
        self.nodes.append(helper.make_node(kind, names, [name], name=name, **attributes))
        return Value(self, name)

    def value(self, one: Any) -> Value:
        """Return a number or array as a constant; return a value as it is."""
        if isinstance(one, Value):
            return one
        array = np.asarray([one], np.int64) if isinstance(one, int) else np.asarray(one, order="C")
        name = f"{self.prefix}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return Value(self, name)

    def range(self, count: Value) -> Value:
        """Return 0, 1, ... count - 1."""
        zero, one = (np.asarray(number, np.int64) for number in (0, 1))
        return self.add("Range", zero, self.add("Squeeze", count), one)

    def window_places(self, windows: Value, step: int, inner: int, taken: int, first: int) -> Value:
        """Return the places on a side that windows take: taken x (windows inner)."""
        taps = (np.arange(taken)[:, None, None] * inner + first + np.arange(inner)).astype(np.int64)
        return (self.range(windows).reshape(1, -1, 1) * step + taps).reshape(taken, -1)


def rewrite(proto: Any) -> None:
    """Replace, in place, every convolution with constant weights that one of the forms fits."""
    graph = proto.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    for node in graph.node:
        constant = node.op_type == "Conv" and node.input[1] in weights
        replacement = _replacement(node, weights) if constant else None
        if replacement is None:
            nodes.append(node)
        else:
            nodes += replacement.nodes
            graph.initializer.extend(replacement.constants)
    del graph.node[:]
    graph.node.extend(nodes)


def _replacement(node: NodeProto, weights: dict[str, TensorProto]) -> Graph | None:
    """Return the nodes that replace a convolution; None if no form fits it."""
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    weight = weights[node.input[1]]
    out, into, *kernel = weight.dims
    channels, size = min(out, into), max(kernel, default=0)
    dilations = list(attributes.get("dilations", [1] * len(kernel)))
    same_pads = [step * (side // 2) for step, side in zip(dilations, kernel, strict=True)] * 2
    if (
        weight.data_type != TensorProto.FLOAT
        or len(kernel) != 2
        or attributes.get("group", 1) != 1
        or list(attributes.get("strides", [1, 1])) != [1, 1]
        or list(attributes.get("pads", [0, 0] * 2)) != same_pads
    ):
        return None
    g = Graph(node.output[0])
    x, kernels = Value(g, node.input[0]), Value(g, node.input[1]).permute(2, 3, 1, 0)
    if kernel == [3, 3] and dilations[0] == dilations[1] and channels >= LEAST_CHANNELS:
        y = _winograd(g, x, kernels, (into, out), dilations[0])
    elif (
        min(kernel) == 1
        and size % 2
        and size >= fft_conv.LEAST_SIZE
        and dilations == [1, 1]
        and channels >= fft_conv.LEAST_CHANNELS
    ):
        y = _fourier(g, x, kernels, (into, out), size, upright=kernel[0] > 1)
    else:
        return None
    if len(node.input) > 2:
        y = y + Value(g, node.input[2])
    y.permute(0, 3, 1, 2)
    g.nodes[-1].output[0] = node.output[0]
    return g


def _winograd(g: Graph, x: Value, kernels: Value, channels: tuple[int, int], d: int) -> Value:
    """Write a 3x3 as Winograd's tiles, each of every d-th point."""
    n, height, width = _sides(g, x)
    side = winograd.OUT * d
    rows, columns = (height + (side - 1)) // side, (width + (side - 1)) // side
    down = g.window_places(rows, side, d, winograd.IN, -d).reshape(winograd.IN, 1, 1, -1, 1)
    right = g.window_places(columns, side, d, winograd.IN, -d).reshape(1, winograd.IN, 1, 1, -1)
    image = g.range(n).reshape(-1, 1, 1)
    inside = g.add("And", down.within(height), right.within(width))
    taken = g.add("Where", inside, (image * height + down) * width + right, n * height * width)
    down, right = g.range(height).reshape(-1, 1), g.range(width)
    tile_row = image * (rows * d) + down // side * d + down % d
    tile = tile_row * (columns * d) + right // side * d + right % d
    point = down % side // d * winograd.OUT + right % side // d
    given = point * (n * rows * columns * (d * d)) + tile
    arrays = map(np.asarray, winograd.matrices(torch.float32))
    b, k, a = (np.kron(one, one) for one in arrays)
    return _products(g, x, kernels, channels, (b, k, a), taken, given)


def _fourier(
    g: Graph, x: Value, kernels: Value, channels: tuple[int, int], size: int, *, upright: bool
) -> Value:
    """Write an r x 1 (upright) or 1 x r as Fourier's pieces."""
    n, height, width = _sides(g, x)
    length, number = (height, width) if upright else (width, height)
    pieces = (length + (PIECE - 1)) // PIECE
    read = PIECE + 2 * (size // 2)
    place = g.window_places(pieces, PIECE, 1, read, -(size // 2)).reshape(read, 1, 1, -1)
    image, line = g.range(n).reshape(-1, 1, 1), g.range(number).reshape(-1, 1)
    point = place * width + line if upright else line * width + place
    taken = g.add(
        "Where", place.within(length), image * (height * width) + point, n * height * width
    )
    down, right = g.range(height).reshape(-1, 1), g.range(width)
    place, line = (down, right) if upright else (right, down)
    piece = (image * number + line) * pieces + place // PIECE
    given = place % PIECE * (n * number * pieces) + piece
    a, b, k = (one.numpy() for one in fft_conv.matrices(PIECE, size, False, torch.float32))
    return _products(g, x, kernels, channels, (b, k, a), taken, given)


def _products(
    g: Graph,
    x: Value,
    kernels: Value,
    channels: tuple[int, int],
    matrices: tuple[np.ndarray, ...],
    taken: Value,
    given: Value,
) -> Value:
    """Transform points, multiply them over the channels, and transform them back.

    Args:
        g: Graph to add to.
        x: N x C x h x w.
        kernels: r x s x C x C'.
        channels: C and C'.
        matrices: Transforms of the points, of the kernels, and of the products.
        taken: Index of the points that the windows take; one after the last is zero.
        given: Index of the results.

    Returns:
        N x h x w x C'.
    """
    into, kernel, back = matrices
    n, height, width = _sides(g, x)
    count, _ = into.shape
    zero = np.zeros((1, channels[0]), np.float32)
    points = g.add("Concat", x.permute(0, 2, 3, 1).reshape(-1, channels[0]), zero, axis=0)
    windows = g.add("Gather", points, taken.reshape(-1), axis=0).reshape(into.shape[1], -1)
    transformed = (g.value(into) @ windows).reshape(count, -1, channels[0])
    weights = (g.value(kernel) @ kernels.reshape(kernel.shape[1], -1)).reshape(count, *channels)
    y = (g.value(back) @ (transformed @ weights).reshape(count, -1)).reshape(-1, channels[1])
    return g.add("Gather", y, given.reshape(-1), axis=0).reshape(n, height, width, channels[1])


def _sides(g: Graph, x: Value) -> tuple[Value, Value, Value]:
    """Return N, h and w of N x C x h x w, each a value of one element."""
    n, height, width = (g.add("Shape", x, start=axis, end=axis + 1) for axis in (0, 2, 3))
    return n, height, width
