"""What tests of `--runtime auto` share: pictures, and a cache with known speeds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from seenet.core import processor
from seenet.core.files import write_text
from seenet.export.backends import PLAIN
from seenet.export.fastest import Speeds
from seenet.prediction.loading import PredictOptions
from tests.prediction.doubles import draw

ONNX, OPENVINO = ("onnx", "fp32"), ("openvino", "fp32")
BF16, OPENVINO_BF16 = ("eager", "bf16"), ("openvino", "bf16")
BACKENDS = [PLAIN, ONNX, OPENVINO]
OPTIONS = PredictOptions()


def draw_pictures(count: int) -> None:
    for number in range(count):
        draw(Path(f"pictures/{number:02d}.png"), number)


def known(results: dict[Any, Any], **changed: Any) -> Speeds:
    """Write what a trial on these pictures leaves in the cache: speeds, or failures."""
    speeds = Speeds(Path("model.safetensors"), 54, processor.name(), replace(OPTIONS, **changed))
    speeds.known = {
        backend: {"speed": one, "equal": 1.0} if isinstance(one, float) else {"failed": one}
        for backend, one in results.items()
    }
    write_text(speeds.file, json.dumps({"candidates": speeds.candidates([*results])}))
    return speeds
