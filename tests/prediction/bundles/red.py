"""Bundles made by hand, so that tests of their readers need no export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from seenet.core.labels import LabelSet
from seenet.data.shapes import SHAPES
from seenet.prediction.bundles.bundle import KEY, Card

CENTRES = (21.0, 63.5, 106.0, 148.5, 191.0, 233.5)


def card(labels: LabelSet = SHAPES) -> Card:
    return Card(
        labels=labels,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        precision="fp32",
        version="0.1.0",
        model_sha256="0" * 64,
    )


def red_scores(image: np.ndarray) -> np.ndarray:
    """The scores of `red_model` for a picture."""
    red = image[None, :, :, 0].astype(np.float32)
    return -np.abs(red - np.array(CENTRES, np.float32)[:, None, None])


def red_model() -> onnx.ModelProto:
    """Scores are -|red - centre|: the class of a pixel is the centre nearest to its red."""
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["pixels"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["pixels", "first"], ["red"], axis=1),
        helper.make_node("Sub", ["red", "centres"], ["away"]),
        helper.make_node("Abs", ["away"], ["distance"]),
        helper.make_node("Neg", ["distance"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=0),
        helper.make_node("Cast", ["ids"], ["mask"], to=TensorProto.UINT8),
    ]
    constants = {
        "first": np.array([0]),
        "centres": np.array(CENTRES, np.float32).reshape(1, -1, 1, 1),
    }
    graph = helper.make_graph(
        nodes,
        "red",
        [
            helper.make_tensor_value_info(
                "images", TensorProto.UINT8, ["batch", "height", "width", 3]
            )
        ],
        [
            helper.make_tensor_value_info("mask", TensorProto.UINT8, ["batch", "height", "width"]),
            helper.make_tensor_value_info(
                "scores", TensorProto.FLOAT, ["batch", len(CENTRES), "height", "width"]
            ),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def write_red(
    path: Path, *, text: str | None = None, edit: Callable[[Any], None] | None = None
) -> Path:
    """Write a bundle; `text` replaces its card, `edit` changes the model."""
    model = red_model()
    helper.set_model_props(model, {KEY: card().text() if text is None else text})
    if edit is not None:
        edit(model)
    path.write_bytes(model.SerializeToString())
    return path
