"""The program as one ONNX file, for processors with wide and long convolutions written out as matrix products.

These are Winograd's tiles for 3x3 and Fourier's pieces for r x 1: runtimes know neither form, and save by them what
prediction here saves (`seenet.model.fast`). Points are gathered by an index that comes from the sizes, so that memory is
passed over once on either side of the products. The kernels are transformed by the graph itself, which runtimes do once,
as they load it: the file holds the same weights as before.
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
from seenet.prediction.bundle import KEY, Card
from seenet.prediction.onnx_file import MAX_BYTES

OPSET = 20
AXES = {"images": ("batch", "height", "width"), "mask": ("batch", "height", "width"), "scores": ("batch", None, "height", "width")}
LEAST_CHANNELS = 128
"""Of a 3x3: below, moving the tiles costs more than the products saved. The same whatever processor exports."""
PIECE = 16
"""Points that a piece of a line gives: few, so that little of the last one lies beyond the picture."""


def write(path: Path, model: Segmenter, card: Card, *, plain: bool, calibration: Sequence[np.ndarray]) -> None:
    """Write a model as one .onnx; in INT8 where there are pictures to calibrate on."""
    proto = model_proto(model, plain=plain or bool(calibration))
    if calibration:
        proto = quantize(proto, calibration)
        clean(proto)
    write_proto(path, proto, card)


def model_proto(model: Segmenter, *, plain: bool) -> Any:
    """Return an `onnx.ModelProto` of a model in eval mode, its convolutions as they are or rewritten."""
    return to_proto(trace(model)) if plain else quick_proto(model)


def to_proto(program: ExportedProgram) -> Any:
    """An `onnx.ModelProto` that says nothing of when, where and by whom it was made."""
    import torch

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
    """Drop stack traces, paths and intermediate shapes, and name the axes."""
    del proto.metadata_props[:]
    proto.doc_string = proto.graph.doc_string = ""
    for graph in (proto.graph, *proto.functions):
        del graph.metadata_props[:]
        del graph.value_info[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
    for tensor in proto.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
        for side, name in zip(value.type.tensor_type.shape.dim, AXES[value.name], strict=False):
            if name:
                side.dim_param = name


def write_proto(path: Path, proto: Any, card: Card) -> None:
    """Write an `onnx.ModelProto` with its card."""
    from onnx import helper

    helper.set_model_props(proto, {KEY: card.text()})
    if proto.ByteSize() > MAX_BYTES:
        raise DataError(f"{path.name}: the network takes {proto.ByteSize()} bytes, ONNX holds {MAX_BYTES} at most; use --format openvino")
    path.write_bytes(proto.SerializeToString(deterministic=True))


class Value:
    """What a node gives. Operators on it add nodes; whole numbers are int64."""

    def __init__(self, graph: "Graph", name: str) -> None:
        self.graph, self.name = graph, name

    def __add__(self, other: Any) -> "Value":
        return self.graph.add("Add", self, other)

    def __mul__(self, other: Any) -> "Value":
        return self.graph.add("Mul", self, other)

    def __floordiv__(self, other: Any) -> "Value":
        """Of numbers that are not negative: ONNX rounds towards zero."""
        return self.graph.add("Div", self, other)

    def __mod__(self, other: Any) -> "Value":
        return self.graph.add("Mod", self, other)

    def __matmul__(self, other: Any) -> "Value":
        return self.graph.add("MatMul", self, other)

    def reshape(self, *sides: Any) -> "Value":
        """Sides are numbers (-1: what is left) or values of one element."""
        return self.graph.add("Reshape", self, self.graph.add("Concat", *(self.graph.value(side) for side in sides), axis=0))

    def permute(self, *order: int) -> "Value":
        return self.graph.add("Transpose", self, perm=order)

    def within(self, side: Any) -> "Value":
        """Where 0 <= self < side."""
        return self.graph.add("And", self.graph.add("GreaterOrEqual", self, 0), self.graph.add("Less", self, side))


class Graph:
    """Nodes that stand in the place of one, and their constants."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, kind: str, *inputs: Any, **attributes: Any) -> Value:
        """The output of a new node; numbers and arrays among its inputs become constants."""
        name = f"{self.prefix}/{kind}_{len(self.nodes)}"
        names = [self.value(one).name for one in inputs]
        self.nodes.append(helper.make_node(kind, names, [name], name=name, **attributes))
        return Value(self, name)

    def value(self, one: Any) -> Value:
        """A constant as a value; what is one stays it."""
        if isinstance(one, Value):
            return one
        array = np.asarray([one], np.int64) if isinstance(one, int) else np.asarray(one, order="C")
        name = f"{self.prefix}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return Value(self, name)

    def range(self, count: Value) -> Value:
        """0, 1, ... count - 1."""
        zero, one = (np.asarray(number, np.int64) for number in (0, 1))
        return self.add("Range", zero, self.add("Squeeze", count), one)

    def span(self, windows: Value, step: int, inner: int, taken: int, first: int) -> Value:
        """Places on a side that windows take: taken x (windows inner)."""
        taps = (np.arange(taken)[:, None, None] * inner + first + np.arange(inner)).astype(np.int64)
        return (self.range(windows).reshape(1, -1, 1) * step + taps).reshape(taken, -1)


def quick_proto(model: Segmenter) -> Any:
    """An `onnx.ModelProto` of a model in eval mode as prediction folds it, rewritten."""
    twin: Any = prediction_form(model, "plain")
    proto = to_proto(trace(twin))
    rewrite(proto)
    return proto


def rewrite(proto: Any) -> None:
    """Write out, in place, every convolution of an `onnx.ModelProto` that these forms fit and whose weights are constants."""
    graph = proto.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []
    for node in graph.node:
        written = _written(node, weights) if node.op_type == "Conv" and node.input[1] in weights else None
        if written is None:
            nodes.append(node)
        else:
            nodes += written.nodes
            constants += written.constants
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def _written(node: NodeProto, weights: dict[str, TensorProto]) -> Graph | None:
    """The nodes that stand for a convolution, None where it stays."""
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    weight = weights[node.input[1]]
    out, into, *kernel = weight.dims
    least, size = min(out, into), max(kernel, default=0)
    spread = list(attributes.get("dilations", [1] * len(kernel)))
    around = [step * (side // 2) for step, side in zip(spread, kernel, strict=True)] * 2
    same = list(attributes.get("strides", [1, 1])) == [1, 1] and list(attributes.get("pads", [0, 0] * 2)) == around
    if weight.data_type != TensorProto.FLOAT or len(kernel) != 2 or attributes.get("group", 1) != 1 or not same:
        return None
    g = Graph(node.output[0])
    x, kernels = Value(g, node.input[0]), Value(g, node.input[1]).permute(2, 3, 1, 0)
    if kernel == [3, 3] and spread[0] == spread[1] and least >= LEAST_CHANNELS:
        y = _wide(g, x, kernels, (into, out), spread[0])
    elif min(kernel) == 1 and size % 2 and size >= fft_conv.LEAST_SIZE and spread == [1, 1] and least >= fft_conv.LEAST_CHANNELS:
        y = _line(g, x, kernels, (into, out), size, upright=kernel[0] > 1)
    else:
        return None
    if len(node.input) > 2:
        y = y + Value(g, node.input[2])
    y.permute(0, 3, 1, 2)
    g.nodes[-1].output[0] = node.output[0]
    return g


def _wide(g: Graph, x: Value, kernels: Value, channels: tuple[int, int], d: int) -> Value:
    """3x3 by Winograd's tiles: each takes every d-th point."""
    n, height, width = _sides(g, x)
    side = winograd.OUT * d
    rows, columns = (height + (side - 1)) // side, (width + (side - 1)) // side
    down = g.span(rows, side, d, winograd.IN, -d).reshape(winograd.IN, 1, 1, -1, 1)
    right = g.span(columns, side, d, winograd.IN, -d).reshape(1, winograd.IN, 1, 1, -1)
    image = g.range(n).reshape(-1, 1, 1)
    inside = g.add("And", down.within(height), right.within(width))
    taken = g.add("Where", inside, (image * height + down) * width + right, n * height * width)
    down, right = g.range(height).reshape(-1, 1), g.range(width)
    tile = (image * (rows * d) + down // side * d + down % d) * (columns * d) + right // side * d + right % d
    given = (down % side // d * winograd.OUT + right % side // d) * (n * rows * columns * (d * d)) + tile
    b, k, a = (np.kron(one, one) for one in _arrays(winograd.matrices))
    return _products(g, x, kernels, channels, (b, k, a), taken, given)


def _line(g: Graph, x: Value, kernels: Value, channels: tuple[int, int], size: int, *, upright: bool) -> Value:
    """r x 1 (upright) or 1 x r by Fourier's pieces."""
    n, height, width = _sides(g, x)
    length, number = (height, width) if upright else (width, height)
    pieces = (length + (PIECE - 1)) // PIECE
    place = g.span(pieces, PIECE, 1, PIECE + 2 * (size // 2), -(size // 2)).reshape(PIECE + 2 * (size // 2), 1, 1, -1)
    image, line = g.range(n).reshape(-1, 1, 1), g.range(number).reshape(-1, 1)
    point = place * width + line if upright else line * width + place
    taken = g.add("Where", place.within(length), image * (height * width) + point, n * height * width)
    down, right = g.range(height).reshape(-1, 1), g.range(width)
    place, line = (down, right) if upright else (right, down)
    given = place % PIECE * (n * number * pieces) + (image * number + line) * pieces + place // PIECE
    a, b, k = _arrays(fft_conv.matrices, PIECE, size, False)
    return _products(g, x, kernels, channels, (b, k, a), taken, given)


def _products(
    g: Graph, x: Value, kernels: Value, channels: tuple[int, int], matrices: tuple[np.ndarray, ...], taken: Value, given: Value
) -> Value:
    """N x C x h x w -> N x h x w x C': points `taken` (one more is zero), transformed, multiplied over the channels, those `given` back."""
    into, kernel, back = matrices
    n, height, width = _sides(g, x)
    count, _ = into.shape
    points = g.add("Concat", x.permute(0, 2, 3, 1).reshape(-1, channels[0]), np.zeros((1, channels[0]), np.float32), axis=0)
    windows = g.add("Gather", points, taken.reshape(-1), axis=0).reshape(into.shape[1], -1)
    transformed = (g.value(into) @ windows).reshape(count, -1, channels[0])
    weights = (g.value(kernel) @ kernels.reshape(kernel.shape[1], -1)).reshape(count, *channels)
    y = (g.value(back) @ (transformed @ weights).reshape(count, -1)).reshape(-1, channels[1])
    return g.add("Gather", y, given.reshape(-1), axis=0).reshape(n, height, width, channels[1])


def _sides(g: Graph, x: Value) -> tuple[Value, Value, Value]:
    """N, h and w of N x C x h x w, each a value of one element."""
    n, height, width = (g.add("Shape", x, start=axis, end=axis + 1) for axis in (0, 2, 3))
    return n, height, width


def _arrays(matrices: Any, *arguments: Any) -> list[np.ndarray]:
    return [matrix.numpy() for matrix in matrices(*arguments, torch.float32)]
