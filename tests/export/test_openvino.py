"""What is written for OpenVINO decides as NumPy does."""

import numpy as np
import openvino
import pytest
from onnx import TensorProto, helper

from seenet.export.openvino import MOST_CLASSES, _compare, read_onnx


def decision(classes: int, **attributes: int) -> openvino.Model:
    """scores N x K x h x w -> the class of the highest, as an exported network ends."""
    nodes = [
        helper.make_node(
            "ArgMax", ["scores"], ["best"], **{"axis": 1, "keepdims": 0, **attributes}
        ),
        helper.make_node("Cast", ["best"], ["mask"], to=TensorProto.UINT8),
    ]
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", classes, "h", "w"])
    mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, None)
    graph = helper.make_graph(nodes, "g", [scores], [mask])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return read_onnx(proto.SerializeToString())


def kinds(model: openvino.Model) -> list[str]:
    return [operation.get_type_name() for operation in model.get_ordered_ops()]


def run(model: openvino.Model, scores: np.ndarray) -> np.ndarray:
    return np.asarray(openvino.Core().compile_model(model, "CPU")(scores)[0])


@pytest.mark.parametrize("classes", [1, 2, 21, MOST_CLASSES])
def test_the_first_of_the_highest(classes: int) -> None:
    model = decision(classes)
    assert "TopK" in kinds(model)
    _compare(model)
    assert "TopK" not in kinds(model)
    # Few numbers, so that many are the highest together.
    scores = np.random.default_rng(0).integers(-2, 3, (2, classes, 7, 9)).astype(np.float32)
    scores[1, classes // 2, 3] = np.inf
    assert np.array_equal(run(model, scores), scores.argmax(1))


@pytest.mark.parametrize("nothing", [np.nan, -np.inf])
def test_where_nothing_is_highest_some_class(nothing: float) -> None:
    model = decision(5)
    _compare(model)
    assert run(model, np.full((1, 5, 2, 2), nothing, np.float32)).max() < 5


@pytest.mark.parametrize(("classes", "attributes"), [(MOST_CLASSES + 1, {}), (5, {"axis": 3})])
def test_other_searches_stay(classes: int, attributes: dict[str, int]) -> None:
    model = decision(classes, **attributes)
    _compare(model)
    assert "TopK" in kinds(model)
