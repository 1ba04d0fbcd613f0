"""Convolutions written as matrix products, run by ONNX Runtime, beside torch's in float64."""

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
    kernel: tuple[int, int],
    channels: tuple[int, int],
    *,
    bias: bool = True,
    relu: bool = False,
    **attributes: Any,
) -> ModelProto:
    """x -> convolution (-> ReLU), of random weights, for any batch and size."""
    generator, (into, out) = np.random.default_rng(0), channels
    shapes = {"w": (out, into // attributes.get("group", 1), *kernel), "b": (out,)}
    inputs = ["w", "b"] if bias else ["w"]
    initializers = [
        numpy_helper.from_array(generator.standard_normal(shapes[name], np.float32), name)
        for name in inputs
    ]
    nodes = [helper.make_node("Conv", ["x", *inputs], ["c" if relu else "y"], **attributes)]
    nodes += [helper.make_node("Relu", ["c"], ["y"])] if relu else []
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", side, "h", "w"])
        for name, side in (("x", into), ("y", out))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def kinds(proto: ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def check_rewritten(proto: ModelProto, *, relu: bool = False, **geometry: Any) -> ModelProto:
    """Rewrite a convolution, and compare it with torch's in float64 at any size."""
    weight, bias = (
        torch.from_numpy(numpy_helper.to_array(tensor).copy()).double()
        for tensor in proto.graph.initializer
    )
    rewrite(proto)
    checker.check_model(proto, full_check=True)
    assert "Conv" not in kinds(proto)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )

    @given(st.integers(1, 2), st.integers(1, 40), st.integers(1, 40))
    @settings(max_examples=12, deadline=None)
    def same(n: int, height: int, width: int) -> None:
        generator = np.random.default_rng(height * 41 + width)
        x = generator.standard_normal((n, weight.shape[1], height, width), np.float32)
        y = F.conv2d(torch.from_numpy(x).double(), weight, bias, **geometry)
        expected = (y.relu() if relu else y).numpy()
        (found,) = session.run(None, {"x": x})
        assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()

    same()
    return proto


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_wide_convolutions_of_any_size(dilation: int) -> None:
    options = {"dilations": [dilation] * 2, "pads": [dilation] * 4}
    proto = convolution((3, 3), (128, 130), relu=True, **options)
    check_rewritten(proto, relu=True, dilation=dilation, padding=dilation)
    assert kinds(proto)[-1] == "Relu"
    # ONNX wants numbers here; ONNX Runtime would take vectors of one as well.
    numbers = {tensor.name for tensor in proto.graph.initializer if not tensor.dims}
    ranges = [node for node in proto.graph.node if node.op_type == "Range"]
    assert ranges and all({node.input[0], node.input[2]} <= numbers for node in ranges)


@pytest.mark.parametrize("size", [7, 25, 41])
@pytest.mark.parametrize("upright", [True, False])
def test_lines_of_any_size(size: int, upright: bool) -> None:
    kernel, padding = ((size, 1), (size // 2, 0)) if upright else ((1, size), (0, size // 2))
    check_rewritten(convolution(kernel, (64, 66), pads=padding * 2), padding=padding)


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
def test_other_convolutions_stay(
    kernel: tuple[int, int], channels: tuple[int, int], attributes: dict[str, Any]
) -> None:
    proto = convolution(kernel, channels, **attributes)
    before = proto.SerializeToString()
    rewrite(proto)
    assert proto.SerializeToString() == before


def test_convolutions_with_computed_weights_stay() -> None:
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
