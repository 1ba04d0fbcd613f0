"""Write a network for OpenVINO (NAME.xml and NAME.bin), and quantise networks to INT8 with NNCF."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seenet.core.errors import UsageError
from seenet.model.segmenter import Segmenter
from seenet.prediction.bundles.bundle import KEY, Card

MOST_CLASSES = 64
"""Largest number of classes whose best is found by comparing, which takes as much memory as the
scores.
"""
FEWEST = 16
"""Least number of pictures for calibration: fewer say little about ranges. NNCF's authors take
300.
"""
MOST = 300


def write(
    path: Path, model: Segmenter, card: Card, *, plain: bool, calibration: Sequence[np.ndarray]
) -> None:
    """Write a model as .xml and .bin, by way of ONNX; in INT8 if there are calibration pictures."""
    # It needs packages that `read_onnx` does without.
    from seenet.export.onnx import model_proto

    proto = model_proto(model, plain=plain or bool(calibration))
    network = read_onnx(proto.SerializeToString(deterministic=True))
    write_openvino(path, quantize(network, calibration) if calibration else network, card)


def read_onnx(content: bytes) -> Any:
    """Read an `openvino.Model` from an ONNX file's content; a path would be stored in it."""
    import openvino

    return openvino.Core().read_model(content)


def write_openvino(path: Path, model: Any, card: Card) -> None:
    """Write an `openvino.Model` as `path` (.xml) and its weights beside it, in fp16 by the card."""
    import openvino

    _compare(model)
    for place, operation in enumerate(model.get_ordered_ops()):
        # OpenVINO numbers the names of operations over the whole process. Inputs and outputs have
        # names of their own.
        if operation.get_type_name() not in ("Parameter", "Result"):
            operation.set_friendly_name(f"{operation.get_type_name()}_{place}")
    model.set_rt_info(card.text(), [KEY])
    openvino.save_model(model, path, compress_to_fp16=card.precision == "fp16")


def _compare(model: Any) -> None:
    """Replace the argmax over classes by comparisons with the maximum.

    The search that OpenVINO reads from ONNX takes an eighth of a light network's time.
    """
    from openvino import opset13 as operators

    for search in model.get_ordered_ops():
        if (
            search.get_type_name() != "TopK"
            or search.get_axis() != 1
            or search.get_attributes()["mode"] != "max"
        ):
            continue
        scores, count = search.input_value(0), search.output(1).partial_shape[1]
        classes = scores.partial_shape[1]
        if count != 1 or not classes.is_static or classes.get_length() > MOST_CLASSES:
            continue
        axis, ids = np.array([1]), np.arange(classes.get_length(), dtype=np.float32)
        highest = operators.equal(scores, operators.reduce_max(scores, axis, keep_dims=True))
        # The last class where none is highest: NaN, or only -inf, which ReduceMax does not see.
        first = operators.reduce_min(
            operators.select(highest, ids[:, None, None], ids[-1]), axis, keep_dims=True
        )
        search.output(1).replace(
            operators.convert(first, search.output(1).element_type.get_type_name()).output(0)
        )


def check_count(count: int) -> None:
    """Raise UsageError for fewer pictures than `FEWEST`."""
    if count < FEWEST:
        raise UsageError(
            f"--int8: found {count} pictures to calibrate on, expected at least {FEWEST} like those"
            " it will be used on; give --images"
        )


def quantize(model: Any, pictures: Sequence[np.ndarray]) -> Any:
    """Quantise a trained `openvino.Model` or `onnx.ModelProto` to INT8 with NNCF.

    Args:
        model: The network.
        pictures: H x W x C uint8, to calibrate on.
    """
    # Otherwise it reports its use to its makers.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    data = nncf.Dataset(list(pictures[:MOST]), lambda picture: {"images": picture[None]})
    return nncf.quantize(model, data, subset_size=min(len(pictures), MOST))
