"""Open exported models in ONNX Runtime or OpenVINO; each is imported only where it is needed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from seenet.core.errors import DataError, UsageError
from seenet.core.processor import lacks_memory
from seenet.prediction.bundles.bundle import FORMATS, KEY, Card, Opened, parse_card
from seenet.prediction.bundles.formats import BUNDLE_FORMATS

DEVICES = ("auto", "cpu")
ONNX_BYTES = 2**31 - 1
"""Largest ONNX file: protobuf's limit."""
ONNX_DOMAINS = ("", "ai.onnx")

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def open_bundle(path: Path, *, device: str = "auto", precision: str = "fp32") -> Opened:
    """Load the bundle at `path`.

    Raises:
        DataError: The file is damaged, foreign, hostile or of a newer version, or its weights are
            missing.
        UsageError: The runtime does not have this device or precision, or the extra `export` is not
            installed.
    """
    kind = FORMATS[path.suffix]
    if device not in DEVICES:
        raise UsageError(
            f"device {device}: an exported model runs on {' or '.join(DEVICES)}; use --device cpu"
        )
    precisions = BUNDLE_FORMATS[kind].precisions
    if precision not in precisions:
        raise UsageError(
            f"precision {precision}: {path.name} ({kind}) runs in {' or '.join(precisions)}"
        )
    require(*BUNDLE_FORMATS[kind].runs_with)
    card, runtime, run = OPENERS[kind](path, precision)
    reopen = partial(open_bundle, path, device=device, precision=precision)
    return Opened(card, runtime, card.precision if precision == "fp32" else precision, run, reopen)


def require(*packages: str) -> None:
    """Raise UsageError if one of these packages, of the extra `export`, is not installed."""
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise UsageError(
                f"exported models need {package} ({error}); install it with: "
                "pip install 'seenet[export]'"
            ) from None


def _open_onnx(path: Path, precision: str) -> tuple[Card, str, Run]:
    import onnxruntime

    card = parse_card(path, read_metadata(path).get(KEY))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with _runtime_errors(path):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    _check_interface(
        path,
        card,
        [(one.name, one.shape) for one in session.get_inputs()],
        [one.name for one in session.get_outputs()],
    )

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with _runtime_errors(path):
            mask, scores = session.run(["mask", "scores"], {"images": images})
        return scores, mask

    return card, f"onnxruntime {onnxruntime.__version__}", run


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file, which is checked before a runtime reads it.

    Raises:
        DataError: The file is over 2 GiB, truncated or not ONNX, has a tensor in another file or
            operators that ONNX does not define, or is refused by `onnx.checker`.
    """
    from onnx import ModelProto, checker

    size = path.stat().st_size
    if not 0 < size <= ONNX_BYTES:
        raise DataError(
            f"{path}: {size} bytes, expected an ONNX file of 1 to {ONNX_BYTES}; export it again"
        )
    content = path.read_bytes()
    try:
        model = ModelProto.FromString(content)
        imports = [one.domain for part in (model, *model.functions) for one in part.opset_import]
        foreign = [domain for domain in imports if domain not in ONNX_DOMAINS]
        if foreign:
            raise _refusal(
                path, f"operators of domain {foreign[0][:80]!r}", "those of ai.onnx alone"
            )
        if _has_external_data(model):
            raise _refusal(path, "a tensor in another file", "all of them inside")
        checker.check_model(content)
    except DataError:
        raise
    except Exception as error:  # protobuf's and the checker's have no class in common
        text = " ".join(str(error).split())[:200]
        raise _refusal(
            path,
            f"no valid ONNX model ({type(error).__name__}: {text})",
            "what seenet export wrote",
        ) from None
    return {entry.key: entry.value for entry in model.metadata_props}


def _has_external_data(message: Any) -> bool:
    """Return whether a protobuf message contains, at any depth, a tensor with values in another
    file.
    """
    for field, value in message.ListFields():
        if field.name == "external_data" or (field.name == "data_location" and value):
            return True
        if field.message_type is not None:
            parts = [value] if hasattr(value, "ListFields") else value
            if any(map(_has_external_data, parts)):
                return True
    return False


def _refusal(path: Path, found: str, expected: str) -> DataError:
    return DataError(
        f"{path}: refused: found {found}, expected {expected}; export it again, or do not use it"
    )


def _open_openvino(path: Path, precision: str) -> tuple[Card, str, Run]:
    import openvino

    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise DataError(
            f"{path}: its weights {weights.name} are not beside it; copy both files, or export it "
            "again"
        )
    core = openvino.Core()
    with _runtime_errors(path):
        model = core.read_model(path, weights)
    try:
        text = str(model.get_rt_info([KEY]).value)
    except RuntimeError:
        text = ""
    card = parse_card(path, text)
    inputs = [(one.any_name, [str(side) for side in one.partial_shape]) for one in model.inputs]
    _check_interface(path, card, inputs, [one.any_name for one in model.outputs])
    # By default it would compute in bf16 where the processor has that.
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    with _runtime_errors(path):
        compiled = core.compile_model(model, "CPU", hint)
    lock = Lock()

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # One at a time, and copies: the runtime writes every answer to the same memory.
        with lock, _runtime_errors(path):
            outputs = compiled({"images": images})
            return np.array(outputs["scores"], np.float32), np.array(outputs["mask"])

    return card, f"openvino {openvino.__version__.split('-')[0]}", run


OPENERS: dict[str, Callable[[Path, str], tuple[Card, str, Run]]] = {
    "onnx": _open_onnx,
    "openvino": _open_openvino,
}


def _check_interface(
    path: Path, card: Card, inputs: list[tuple[str, Any]], outputs: list[str]
) -> None:
    if [name for name, _ in inputs] != ["images"] or sorted(outputs) != ["mask", "scores"]:
        raise DataError(
            f"{path}: inputs {[name[:40] for name, _ in inputs]} and outputs "
            f"{[name[:40] for name in outputs]}, expected images, mask and scores; export it again"
        )
    shape = inputs[0][1]
    if len(shape) != 4 or str(shape[3]) != str(len(card.mean)):
        raise DataError(
            f"{path}: input of shape {shape}, expected N x H x W x {len(card.mean)}; export it "
            "again"
        )


@contextmanager
def _runtime_errors(path: Path) -> Iterator[None]:
    """Convert a runtime's exceptions into one line, or into MemoryError if memory is short."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        if lacks_memory(error):
            raise MemoryError(text[:160]) from None
        raise DataError(
            f"{path}: the runtime refuses it ({type(error).__name__}: {text[:200]}); export it "
            "again"
        ) from None
