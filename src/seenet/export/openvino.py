"""The program for OpenVINO: NAME.xml with NAME.bin beside it; and weights and activations in eight bits, by its NNCF."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seenet.core.errors import UsageError
from seenet.model.segmenter import Segmenter
from seenet.prediction.bundle import KEY, Card

MOST_CLASSES = 64
"""Up to so many the best is found by comparing, which takes as much memory as the scores once more."""
FEWEST = 16
"""Pictures under which ranges of activations say little; the authors of NNCF take 300."""
MOST = 300


def write(path: Path, model: Segmenter, card: Card, *, plain: bool, calibration: Sequence[np.ndarray]) -> None:
    """Write a model as .xml and .bin, by way of ONNX; in INT8 where there are pictures to calibrate on."""
    # It needs packages that only reading ONNX does without.
    from seenet.export.onnx import model_proto

    proto = model_proto(model, plain=plain or bool(calibration))
    network = read_onnx(proto.SerializeToString(deterministic=True))
    write_openvino(path, quantize(network, calibration) if calibration else network, card)


def read_onnx(content: bytes) -> Any:
    """An `openvino.Model` of an ONNX file's content: from memory, so that no path comes into it."""
    import openvino

    return openvino.Core().read_model(content)


def write_openvino(path: Path, model: Any, card: Card) -> None:
    """Write an `openvino.Model` as `path` (.xml) and its weights beside it, in fp16 where the card says so."""
    import openvino

    _compare(model)
    for place, operation in enumerate(model.get_ordered_ops()):
        # OpenVINO counts what it names over the whole process. What inputs and outputs are called stands elsewhere.
        if operation.get_type_name() not in ("Parameter", "Result"):
            operation.set_friendly_name(f"{operation.get_type_name()}_{place}")
    model.set_rt_info(card.text(), [KEY])
    openvino.save_model(model, path, compress_to_fp16=card.precision == "fp16")


def _compare(model: Any) -> None:
    """Find the first class of the highest score by comparing: the search that OpenVINO reads from ONNX takes an eighth of a light network's
    time.
    """
    from openvino import opset13 as operators

    for search in model.get_ordered_ops():
        if search.get_type_name() != "TopK" or search.get_axis() != 1 or search.get_attributes()["mode"] != "max":
            continue
        scores, found = search.input_value(0), search.output(1).partial_shape[1]
        classes = scores.partial_shape[1]
        if found != 1 or not classes.is_static or classes.get_length() > MOST_CLASSES:
            continue
        count, axis = classes.get_length(), np.array([1])
        highest = operators.equal(scores, operators.reduce_max(scores, axis, keep_dims=True))
        numbers = np.arange(count, dtype=np.float32)
        # Where nothing is highest (NaN, or -inf alone, which ReduceMax does not see) the last: a class all the same.
        first = operators.reduce_min(operators.select(highest, numbers[:, None, None], numbers[-1]), axis, keep_dims=True)
        search.output(1).replace(operators.convert(first, search.output(1).element_type.get_type_name()).output(0))


def check_count(count: int) -> None:
    """UsageError for fewer pictures than `FEWEST`."""
    if count < FEWEST:
        raise UsageError(f"--int8: found {count} pictures to calibrate on, expected at least {FEWEST} of what it will see; give --images")


def quantize(model: Any, pictures: Sequence[np.ndarray]) -> Any:
    """An `openvino.Model` or `onnx.ModelProto` in INT8, by NNCF's post-training quantisation; pictures are H x W x C uint8."""
    # Without this it reports its use to its makers, unasked.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    data = nncf.Dataset(list(pictures[:MOST]), lambda picture: {"images": picture[None]})
    return nncf.quantize(model, data, subset_size=min(len(pictures), MOST))
