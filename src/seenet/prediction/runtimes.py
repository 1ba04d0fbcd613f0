"""Bundles opened by ONNX Runtime, OpenVINO or torch; each is imported where it is needed, torch for its own format alone."""

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
from seenet.prediction.bundle import FORMATS, KEY, Card, Opened, parse_card
from seenet.prediction.formats import BUNDLE_FORMATS
from seenet.prediction.onnx_file import read_metadata

DEVICES = ("auto", "cpu")

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def open_bundle(path: Path, *, device: str = "auto", precision: str = "fp32") -> Opened:
    """Load the bundle at `path`.

    Raises DataError: damaged, foreign or hostile file, one half of it missing, a newer version; UsageError: a device or precision that its
    runtime does not have, or the extra `export` is not installed.
    """
    kind = FORMATS[path.suffix]
    if device not in DEVICES:
        raise UsageError(f"device {device}: an exported model runs on {' or '.join(DEVICES)}; use --device cpu")
    if precision not in BUNDLE_FORMATS[kind].precisions:
        raise UsageError(f"precision {precision}: {path.name} ({kind}) runs in {' or '.join(BUNDLE_FORMATS[kind].precisions)}")
    require(*BUNDLE_FORMATS[kind].runs_with)
    card, runtime, run = OPENERS[kind](path, precision)
    again = partial(open_bundle, path, device=device, precision=precision)
    return Opened(card, runtime, card.precision if precision == "fp32" else precision, run, again)


def require(*packages: str) -> None:
    """UsageError where one of the extra `export` is not there."""
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise UsageError(f"exported models need {package} ({error}); install it with: pip install 'seenet[export]'") from None


def _open_onnx(path: Path, precision: str) -> tuple[Card, str, Run]:
    import onnxruntime

    card = parse_card(path, read_metadata(path).get(KEY))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with _told(path):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    _check_interface(path, card, [(one.name, one.shape) for one in session.get_inputs()], [one.name for one in session.get_outputs()])

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with _told(path):
            mask, scores = session.run(["mask", "scores"], {"images": images})
        return scores, mask

    return card, f"onnxruntime {onnxruntime.__version__}", run


def _open_openvino(path: Path, precision: str) -> tuple[Card, str, Run]:
    import openvino

    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise DataError(f"{path}: its weights {weights.name} are not beside it; copy both files, or export it again")
    core = openvino.Core()
    with _told(path):
        model = core.read_model(path, weights)
    try:
        text = str(model.get_rt_info([KEY]).value)
    except RuntimeError:
        text = ""
    card = parse_card(path, text)
    inputs = [(one.any_name, [str(side) for side in one.partial_shape]) for one in model.inputs]
    _check_interface(path, card, inputs, [one.any_name for one in model.outputs])
    # On its own it would compute in bf16 where the processor has that.
    with _told(path):
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"})

    lock = Lock()

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # One at a time, and copies: the runtime writes every answer to the same memory.
        with lock, _told(path):
            found = compiled({"images": images})
            return np.array(found["scores"], np.float32), np.array(found["mask"])

    return card, f"openvino {openvino.__version__.split('-')[0]}", run


def _open_torch(path: Path, precision: str) -> tuple[Card, str, Run]:
    import torch

    from seenet.prediction.torch_file import load_program

    card_text, program = load_program(path)
    card = parse_card(path, card_text)
    module = program.module()

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode(), _told(path):
            mask, scores = module(torch.from_numpy(images))
        return scores.numpy(), mask.numpy()

    return card, f"torch {torch.__version__}", run


OPENERS: dict[str, Callable[[Path, str], tuple[Card, str, Run]]] = {"onnx": _open_onnx, "openvino": _open_openvino, "torch": _open_torch}


def _check_interface(path: Path, card: Card, inputs: list[tuple[str, Any]], outputs: list[str]) -> None:
    if [name for name, _ in inputs] != ["images"] or sorted(outputs) != ["mask", "scores"]:
        raise DataError(
            f"{path}: inputs {[name[:40] for name, _ in inputs]} and outputs {[name[:40] for name in outputs]}, "
            "expected images, mask and scores; export it again"
        )
    shape = inputs[0][1]
    if len(shape) != 4 or str(shape[3]) != str(len(card.mean)):
        raise DataError(f"{path}: input of shape {shape}, expected N x H x W x {len(card.mean)}; export it again")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Whatever a runtime raises becomes one line; memory that is not there a MemoryError."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        if lacks_memory(error):
            raise MemoryError(text[:160]) from None
        raise DataError(f"{path}: the runtime refuses it ({type(error).__name__}: {text[:200]}); export it again") from None
