"""Convolutions written out as matrix products, run by ONNX Runtime, beside torch's in float64."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper
from torch.nn import functional as F

from seenet.export.onnx import rewrite


def convolution(
    kernel: tuple[int, int], channels: tuple[int, int], *, bias: bool = True, relu: bool = False, **attributes: Any
) -> ModelProto:
    """x -> convolution (-> ReLU), of random weights, for any batch and size."""
    generator = np.random.default_rng(0)
    into, out = channels
    weights = [generator.standard_normal((out, into // attributes.get("group", 1), *kernel), np.float32)]
    weights += [generator.standard_normal(out, np.float32)] if bias else []
    initializers = [numpy_helper.from_array(array, name) for array, name in zip(weights, ("w", "b"), strict=False)]
    nodes = [helper.make_node("Conv", ["x", "w", "b"][: 2 + bias], ["c" if relu else "y"], **attributes)]
    nodes += [helper.make_node("Relu", ["c"], ["y"])] if relu else []
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", side, "h", "w"]) for name, side in (("x", into), ("y", out))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def kinds(proto: ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def run(proto: ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


def expected(proto: ModelProto, x: np.ndarray, *, relu: bool = False, **geometry: Any) -> np.ndarray:
    weight, *bias = (torch.from_numpy(numpy_helper.to_array(tensor).copy()).double() for tensor in proto.graph.initializer[:2])
    y = F.conv2d(torch.from_numpy(x).double(), weight, *bias, **geometry)
    return (y.relu() if relu else y).numpy()


WIDE = {dilation: convolution((3, 3), (128, 130), relu=True, dilations=[dilation] * 2, pads=[dilation] * 4) for dilation in (1, 2, 3)}
LINES = {
    (size, upright): convolution((size, 1) if upright else (1, size), (64, 66), pads=([size // 2, 0] if upright else [0, size // 2]) * 2)
    for size in (7, 25, 41)
    for upright in (True, False)
}
sides = st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 40))


def close(found: np.ndarray, correct: np.ndarray) -> bool:
    return bool(np.abs(found - correct).max() <= 2e-5 * np.abs(correct).max())


@pytest.mark.parametrize("dilation", list(WIDE))
def test_wide_convolutions_of_any_size(dilation: int) -> None:
    proto = ModelProto.FromString(WIDE[dilation].SerializeToString())
    rewrite(proto)
    checker.check_model(proto, full_check=True)
    assert "Conv" not in kinds(proto)
    assert kinds(proto)[-1] == "Relu"
    # As ONNX has it; ONNX Runtime would take vectors of one as well.
    numbers = {tensor.name for tensor in proto.graph.initializer if not tensor.dims}
    ranges = [node for node in proto.graph.node if node.op_type == "Range"]
    assert ranges and all({node.input[0], node.input[2]} <= numbers for node in ranges)

    @given(sides)
    @settings(max_examples=12, deadline=None)
    def same(shape: tuple[int, int, int]) -> None:
        n, height, width = shape
        x = np.random.default_rng(height * 41 + width).standard_normal((n, 128, height, width), np.float32)
        assert close(run(proto, x), expected(WIDE[dilation], x, relu=True, dilation=dilation, padding=dilation))

    same()


@pytest.mark.parametrize(("size", "upright"), list(LINES))
def test_lines_of_any_size(size: int, upright: bool) -> None:
    proto = ModelProto.FromString(LINES[size, upright].SerializeToString())
    rewrite(proto)
    checker.check_model(proto, full_check=True)
    assert "Conv" not in kinds(proto)

    @given(sides)
    @settings(max_examples=12, deadline=None)
    def same(shape: tuple[int, int, int]) -> None:
        n, height, width = shape
        x = np.random.default_rng(height * 41 + width).standard_normal((n, 64, height, width), np.float32)
        assert close(run(proto, x), expected(LINES[size, upright], x, padding=(size // 2, 0) if upright else (0, size // 2)))

    same()


@pytest.mark.parametrize(
    ("kernel", "channels", "attributes"),
    [
        ((3, 3), (127, 128), {"pads": [1] * 4}),
        ((3, 3), (128, 128), {"pads": [0] * 4}),
        ((3, 3), (128, 128), {"pads": [1] * 4, "strides": [2, 2]}),
        ((3, 3), (256, 256), {"pads": [1] * 4, "group": 2}),
        ((3, 3), (128, 128), {"pads": [1, 2, 1, 2], "dilations": [1, 2]}),
        ((5, 5), (128, 128), {"pads": [2] * 4}),
        ((1, 1), (128, 128), {}),
        ((5, 1), (64, 64), {"pads": [2, 0, 2, 0]}),
        ((8, 1), (64, 64), {"pads": [4, 0, 4, 0]}),
        ((1, 7), (63, 64), {"pads": [0, 3, 0, 3]}),
        ((1, 7), (64, 64), {"pads": [0, 6, 0, 6], "dilations": [1, 2]}),
    ],
)
def test_what_stays(kernel: tuple[int, int], channels: tuple[int, int], attributes: dict[str, Any]) -> None:
    proto = convolution(kernel, channels, **attributes)
    before = proto.SerializeToString()
    rewrite(proto)
    assert proto.SerializeToString() == before


def test_weights_that_another_node_gives_stay() -> None:
    proto = convolution((3, 3), (128, 128), bias=False, pads=[1] * 4)
    proto.graph.node[0].input[1] = "other"
    proto.graph.node.insert(0, helper.make_node("Neg", ["w"], ["other"]))
    rewrite(proto)
    assert kinds(proto) == ["Neg", "Conv"]


def test_the_file_does_not_grow_by_the_transformed_kernels() -> None:
    proto = convolution((3, 3), (256, 256), pads=[1] * 4)
    before = proto.ByteSize()
    rewrite(proto)
    assert proto.ByteSize() < before + 2**16
