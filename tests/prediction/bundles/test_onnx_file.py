"""Hostile ONNX files are refused in one line, without a crash (bar X5)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from seenet.core.errors import DataError
from seenet.prediction.bundles.onnx_file import read_metadata
from seenet.prediction.loading import load
from tests.prediction.bundles.red import write_red


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
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**30 // 3, 2**29]), "far"))


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


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (external, "in another file"),
        (external_attribute, "in another file"),
        (huge, "elements in 24 bytes"),
        (negative, "of size"),
        (huge_constant, "sizes up to"),
        (unknown_operator, "'Abracadabra'"),
        (unknown_domain, r"'com\.example'"),
        (hidden_in_a_branch, "'Evil'"),
        (nested, "nested over"),
        (unknown_type, "cannot be read"),
    ],
)
def test_a_runtime_never_sees_it(edit: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    path = write_red(tmp_path / "hostile.onnx", edit=edit)
    with pytest.raises(DataError, match=f"refused: .*{message}") as caught:
        read_metadata(path)
    assert "\n" not in str(caught.value)


def test_truncated_and_damaged_files(tmp_path: Path) -> None:
    whole = write_red(tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    generator = np.random.default_rng(0)
    for length in (0, 1, *generator.integers(2, len(whole), 60)):
        path.write_bytes(whole[:length])
        # A cut may fall between two fields: the metadata is what comes last, and is then missing.
        assert "seenet" not in metadata_or_refusal(path)
    for place in generator.integers(0, len(whole), 300):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << int(generator.integers(8)))]) + whole[place + 1 :])
        metadata_or_refusal(path)


def metadata_or_refusal(path: Path) -> dict[str, str]:
    """The metadata, or none where the file is refused in one line."""
    try:
        return read_metadata(path)
    except DataError as error:
        line = str(error)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return {}


def grows(model: Any) -> None:
    """Scores of 51 GB for a picture of 64x64: nothing in the file is large."""
    model.graph.node[5].output[0] = "small"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 1024, 512]), "times"))
    model.graph.node.insert(6, helper.make_node("Shape", ["small"], ["sides"]))
    model.graph.node.insert(7, helper.make_node("Mul", ["sides", "times"], ["large"]))
    model.graph.node.insert(8, helper.make_node("ConstantOfShape", ["large"], ["scores"]))


def wrong_shape(model: Any) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([7]), "first"))


@pytest.mark.parametrize(("edit", "message"), [(grows, "memory|crashes|refuses"), (wrong_shape, "the runtime refuses it")])
def test_what_only_shows_when_it_runs_ends_the_trial_process_alone(edit: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    path = write_red(tmp_path / "hostile.onnx", edit=edit)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    # Refused once, refused again: only what passed is remembered.
    with pytest.raises(DataError, match=message):
        load(path)
