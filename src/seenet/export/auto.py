"""What `seenet predict` computes with: asked for, or left to it and measured."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from seenet.core import processor
from seenet.core.errors import UsageError
from seenet.core.files import sha256
from seenet.core.find import find_model
from seenet.export.fastest import Choice, Way, fastest, open_way
from seenet.prediction.base import BasePredictor
from seenet.prediction.bundles.bundle import FORMATS, is_bundle
from seenet.prediction.loading import PredictOptions, open_predictor
from seenet.prediction.manifest import begun_with
from seenet.prediction.pictures import find_inputs

Precision = Literal["auto", "fp32", "bf16"]
Runtime = Literal["auto", "eager", "onnx", "openvino"]

WAYS: tuple[Way, ...] = (("eager", "fp32"), ("onnx", "fp32"), ("openvino", "fp32"), ("eager", "bf16"), ("openvino", "bf16"))
"""The first that is left is taken where nothing is measured."""
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "onnxruntime", "openvino")}
"""OpenVINO gets its network by way of ONNX."""
LEAST = 20
"""Pictures from which on measuring is worth its time."""


def open_chosen(
    model: str | Path,
    inputs: Sequence[str | Path],
    out: Path,
    *,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    **options: Any,
) -> tuple[BasePredictor, Choice]:
    """The predictor for `inputs`, in the runtime and precision asked for; of those left open the fastest that answers as plain fp32.

    What `out` was begun with goes on; under `LEAST` pictures it is plain fp32. `options` are the others of `PredictOptions`.

    Raises UsageError: what is asked for is not available here (what is, is listed); DataError: as `load`, or a bundle that was asked for
    cannot be made.
    """
    path, plain = find_model(model), PredictOptions(**options)
    if is_bundle(path):
        kind = FORMATS[path.suffix]
        if runtime not in ("auto", kind):
            raise UsageError(f"--runtime {runtime}: {path.name} is exported for {kind}; leave it out, or give the model that it came from")
        predictor = open_predictor(path, plain if precision == "auto" else replace(plain, precision=precision))
        return predictor, Choice(kind, predictor.precision, "the model is exported for it")
    ways, missing = _available(plain)
    left = [way for way in ways if runtime in ("auto", way[0]) and precision in ("auto", way[1])]
    if not left:
        here = ", ".join(map(" ".join, ways))
        reason = next((why for way, why in missing.items() if runtime in ("auto", way[0]) and precision in ("auto", way[1])), "")
        raise UsageError(f"--runtime {runtime} --precision {precision}: {reason or 'there is no such pair'}; available here: {here}")
    # What is read by windows is too large to try anything on.
    pictures = [item.path for item in find_inputs(inputs, out) if not item.windows]
    before = _way(begun_with(out, sha256(path)))
    if len(left) == 1:
        absent = next((why for way, why in missing.items() if runtime == "auto" and way[0] != "eager"), "")
        chosen = Choice(*left[0], f"nothing else is available here: {absent}" if absent else "asked for")
    elif before in left:
        chosen = Choice(*before, f"{out} was begun with it")
    elif int(os.environ.get("WORLD_SIZE") or 1) > 1:
        chosen = Choice(*left[0], "processes that share the pictures try nothing, so that all take the same")
    elif len(pictures) < LEAST:
        chosen = Choice(*left[0], f"others are tried from {LEAST} pictures on")
    else:
        chosen = fastest(path, left, pictures, machine=processor.name(), options=plain)
    predictor = open_way(path, (chosen.runtime, chosen.precision), pictures, options=plain)
    return predictor, chosen


def _way(begun: tuple[str, str] | None) -> Way | None:
    """Of a manifest's words, where the runtime has its version."""
    return begun and ({"onnxruntime": "onnx"}.get(name := begun[0].split()[0], name), begun[1])


def _available(options: PredictOptions) -> tuple[list[Way], dict[Way, str]]:
    """Ways that this machine has, plain fp32 first, and why it has not the others."""
    other = _other_device(options.device)
    missing = {}
    for way in WAYS:
        runtime, precision = way
        absent = [name for name in PACKAGES.get(runtime, ()) if find_spec(name) is None]
        if absent:
            missing[way] = f"{absent[0]} is not installed: pip install 'seenet[export]'"
        elif runtime != "eager" and other:
            missing[way] = f"exported models run on the cpu, not on {other}"
        elif runtime != "eager" and options.factory:
            missing[way] = "a network of --factory is not exported unasked"
        elif runtime != "eager" and options.scales not in (1, [1], (1,)):
            missing[way] = "exported models take scale 1 alone"
        elif precision == "bf16" and not other and not processor.has_bf16():
            missing[way] = f"this processor, {processor.name()}, has no bf16"
    return [way for way in WAYS if way not in missing], missing


def _other_device(device: str) -> str:
    """The accelerator that `device` means, empty for the CPU; torch is asked only where there may be one."""
    maybe = not sys.platform.startswith("linux") or any(Path("/dev", name).exists() for name in ("nvidiactl", "kfd", "dxg"))
    if device == "cpu" or (device == "auto" and not maybe):
        return ""
    from seenet.core.device import choose_device

    found = choose_device(device)
    return "" if found.type == "cpu" else str(found)
