"""Backends that a model can run with: which are available on this machine, and how to open one."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from seenet.core import processor
from seenet.core.errors import DataError
from seenet.core.picture_reader import PictureReader
from seenet.export import bundle_cache
from seenet.prediction.base import BasePredictor
from seenet.prediction.bundles.bundle import BundlePredictor
from seenet.prediction.bundles.formats import BUNDLE_FORMATS
from seenet.prediction.bundles.trial import open_tried
from seenet.prediction.loading import PredictOptions, open_predictor

Backend = tuple[str, str]
"""Runtime (eager, onnx, openvino) and precision."""
PLAIN: Backend = ("eager", "fp32")
BACKENDS: tuple[Backend, ...] = (
    PLAIN,
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("eager", "bf16"),
    ("openvino", "bf16"),
)
"""A job begins with the first of these that is allowed."""
_ONNX = (*BUNDLE_FORMATS["onnx"].written_with, *BUNDLE_FORMATS["onnx"].runs_with)
PACKAGES = {"onnx": _ONNX, "openvino": (*_ONNX, *BUNDLE_FORMATS["openvino"].runs_with)}
"""Packages that a runtime needs. OpenVINO gets its network by way of a bundle for ONNX."""
MOST_VERIFIED = 3
"""Pictures on which an export is verified."""


def missing_backends(accelerator: str, options: PredictOptions) -> dict[Backend, str]:
    """Return the backends that are not available here, and why; plain fp32 always is.

    Args:
        accelerator: Name of the device; "" for the CPU.
        options: Options of prediction.
    """
    missing = {}
    for backend in BACKENDS:
        runtime, precision = backend
        absent = [name for name in PACKAGES.get(runtime, ()) if find_spec(name) is None]
        if absent:
            missing[backend] = f"{absent[0]} is not installed: pip install 'seenet[export]'"
        elif runtime != "eager" and accelerator:
            missing[backend] = f"exported models run on the cpu, not on {accelerator}"
        elif runtime != "eager" and options.factory:
            missing[backend] = "a network of --factory is not exported unasked"
        elif runtime != "eager" and options.scales not in (1, [1], (1,)):
            missing[backend] = "exported models take scale 1 alone"
        elif precision == "bf16" and not accelerator and not processor.has_bf16():
            missing[backend] = f"this processor, {processor.name()}, has no bf16"
    return missing


def accelerator_name(device: str) -> str:
    """Return the name of the accelerator that `device` means; "" for the CPU.

    Torch is imported only where there may be an accelerator.
    """
    maybe = not sys.platform.startswith("linux") or any(
        Path("/dev", name).exists() for name in ("nvidiactl", "kfd", "dxg")
    )
    if device == "cpu" or (device == "auto" and not maybe):
        return ""
    from seenet.core.device import choose_device

    found = choose_device(device)
    if found.type == "cuda":
        import torch

        return torch.cuda.get_device_name(found)
    return "" if found.type == "cpu" else str(found)


def open_backend(
    path: Path,
    backend: Backend,
    pictures: Sequence[Path],
    options: PredictOptions,
    *,
    patience: float | None = None,
) -> BasePredictor:
    """Open a model file's predictor with a backend.

    Args:
        path: The model file.
        backend: Runtime and precision.
        pictures: A bundle that must be exported is verified on the first of these.
        options: Options of prediction, but for the precision.
        patience: As `bundle_cache.bundle`, also for the exceptions.
    """
    runtime, precision = backend
    if runtime == "eager":
        return open_predictor(path, replace(options, precision=precision))
    file = bundle_cache.bundle(path, runtime, lambda: _readable(path, pictures), patience=patience)
    return BundlePredictor(
        open_tried(file, precision=precision),
        scales=options.scales,
        flip=options.flip,
        tiling=options.tiling,
        info={"file": str(path), "sha256": bundle_cache.model_hash(path)},
    )


def _readable(model: Path, pictures: Sequence[Path]) -> list[Path]:
    """Return the first pictures that the model can read, with different file names."""
    reader = PictureReader.of_model(model)
    readable: dict[str, Path] = {}
    for path in pictures[: 4 * MOST_VERIFIED]:
        if path.name not in readable and len(readable) < MOST_VERIFIED:
            with suppress(DataError, OSError):
                reader(path)
                readable[path.name] = path
    return list(readable.values())
