"""Hostile ONNX files: each function makes one of the harmless model that `write_red` writes."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from seenet.core.errors import DataError
from seenet.prediction.bundles.runtimes import read_metadata


def external(model: Any) -> None:
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def external_attribute(model: Any) -> None:
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["far"], value=tensor))


def huge(model: Any) -> None:
    model.graph.initializer[1].dims[:] = [1, 2**40, 2**20, 1]


def negative(model: Any) -> None:
    model.graph.initializer[1].dims[1] = -6


def huge_constant(model: Any) -> None:
    """A sum over 2**57 elements is added to the scores."""
    model.graph.node[5].output[0] = "small"
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**30 // 3, 2**29]), "sides"))
    model.graph.node.insert(6, helper.make_node("ConstantOfShape", ["sides"], ["large"]))
    model.graph.node.insert(7, helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0))
    model.graph.node.insert(8, helper.make_node("Add", ["small", "sum"], ["scores"]))


def unknown_operator(model: Any) -> None:
    model.graph.node[4].op_type = "Abracadabra"


def unknown_domain(model: Any) -> None:
    model.graph.node[4].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def hidden_in_a_branch(model: Any) -> None:
    inner = helper.make_graph([helper.make_node("Evil", [], ["x"])], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["first"], ["y"], then_branch=inner, else_branch=inner))


def nested(model: Any) -> None:
    inner = helper.make_graph([], "inner", [], [])
    for depth in range(20):
        inner = helper.make_graph([helper.make_node("If", ["c"], [f"y{depth}"], then_branch=inner)], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["first"], ["y"], then_branch=inner))


def unknown_type(model: Any) -> None:
    model.graph.initializer[1].data_type = 977


def grows(model: Any) -> None:
    """Scores of 51 GB for a picture of 64x64: nothing in the file is large."""
    model.graph.node[5].output[0] = "small"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 1024, 512]), "times"))
    model.graph.node.insert(6, helper.make_node("Shape", ["small"], ["sides"]))
    model.graph.node.insert(7, helper.make_node("Mul", ["sides", "times"], ["large"]))
    model.graph.node.insert(8, helper.make_node("ConstantOfShape", ["large"], ["scores"]))


def wrong_shape(model: Any) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([7]), "first"))


def metadata_or_refusal(path: Path) -> dict[str, str]:
    """The metadata, or none where the file is refused in one line."""
    try:
        return read_metadata(path)
    except DataError as error:
        line = str(error)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return {}
