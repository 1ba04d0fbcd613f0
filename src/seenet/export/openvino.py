"""The program for OpenVINO: NAME.xml with NAME.bin beside it."""

from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from seenet.export.onnx import to_proto
from seenet.prediction.bundle import KEY, Card


def to_openvino(program: ExportedProgram) -> Any:
    """An `openvino.Model` of `program` (which is used up), by way of ONNX."""
    import openvino

    # From memory, so that no path comes into the file.
    return openvino.Core().read_model(to_proto(program).SerializeToString(deterministic=True))


def write_openvino(path: Path, model: Any, card: Card) -> None:
    """Write an `openvino.Model` as `path` (.xml) and its weights beside it, in fp16 where the card says so."""
    import openvino

    model.set_rt_info(card.text(), [KEY])
    openvino.save_model(model, path, compress_to_fp16=card.precision == "fp16")
