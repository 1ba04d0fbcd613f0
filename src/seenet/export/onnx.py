"""The program as one ONNX file."""

from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from seenet.core.errors import DataError
from seenet.prediction.bundle import KEY, Card
from seenet.prediction.onnx_file import MAX_BYTES

OPSET = 20
AXES = {"images": ("batch", "height", "width"), "mask": ("batch", "height", "width"), "scores": ("batch", None, "height", "width")}


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
