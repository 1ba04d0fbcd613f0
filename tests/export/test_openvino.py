"""The argmax that is written for OpenVINO is NumPy's."""

import numpy as np
import openvino
import pytest
from onnx import TensorProto, helper

from seenet.export.openvino import MOST_CLASSES, _compare, read_onnx


def decision(classes: int, axis: int = 1) -> tuple[openvino.Model, bool]:
    """scores N x K x h x w -> the class of the highest, as an exported network ends; and whether it
    is still found by a search.
    """
    nodes = [
        helper.make_node("ArgMax", ["scores"], ["best"], axis=axis, keepdims=0),
        helper.make_node("Cast", ["best"], ["mask"], to=TensorProto.UINT8),
    ]
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", classes, "h", "w"])
    mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, None)
    graph = helper.make_graph(nodes, "g", [scores], [mask])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = read_onnx(proto.SerializeToString())
    _compare(model)
    return model, "TopK" in [operation.get_type_name() for operation in model.get_ordered_ops()]


def run(model: openvino.Model, scores: np.ndarray) -> np.ndarray:
    return np.asarray(openvino.Core().compile_model(model, "CPU")(scores)[0])


@pytest.mark.parametrize("classes", [1, 2, 21, MOST_CLASSES])
def test_the_first_of_the_highest_wins(classes: int) -> None:
    model, searched = decision(classes)
    assert not searched
    # Few numbers, so that many are the highest together.
    scores = np.random.default_rng(0).integers(-2, 3, (2, classes, 7, 9)).astype(np.float32)
    scores[1, classes // 2, 3] = np.inf
    assert np.array_equal(run(model, scores), scores.argmax(1))


@pytest.mark.parametrize("nothing", [np.nan, -np.inf])
def test_where_none_is_highest_it_is_some_class(nothing: float) -> None:
    model, _ = decision(5)
    assert run(model, np.full((1, 5, 2, 2), nothing, np.float32)).max() < 5


@pytest.mark.parametrize(("classes", "axis"), [(MOST_CLASSES + 1, 1), (5, 3)])
def test_other_searches_stay(classes: int, axis: int) -> None:
    assert decision(classes, axis)[1]
