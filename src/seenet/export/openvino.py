"""The program for OpenVINO: NAME.xml with NAME.bin beside it."""

from pathlib import Path
from typing import Any

from seenet.prediction.bundle import KEY, Card


def read_onnx(content: bytes) -> Any:
    """An `openvino.Model` of an ONNX file's content: from memory, so that no path comes into it."""
    import openvino

    return openvino.Core().read_model(content)


def write_openvino(path: Path, model: Any, card: Card) -> None:
    """Write an `openvino.Model` as `path` (.xml) and its weights beside it, in fp16 where the card says so."""
    import openvino

    for place, operation in enumerate(model.get_ordered_ops()):
        # OpenVINO counts what it names over the whole process. What inputs and outputs are called stands elsewhere.
        if operation.get_type_name() not in ("Parameter", "Result"):
            operation.set_friendly_name(f"{operation.get_type_name()}_{place}")
    model.set_rt_info(card.text(), [KEY])
    openvino.save_model(model, path, compress_to_fp16=card.precision == "fp16")
