"""What tests of `--runtime auto` share: pictures, and a cache that knows something."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seenet.core import processor
from seenet.core.files import write_text
from seenet.export.fastest import PLAIN, Speeds
from seenet.prediction.tiles import MARGIN, MEMORY

ONNX, OPENVINO, BF16 = ("onnx", "fp32"), ("openvino", "fp32"), ("eager", "bf16")
WAYS = [PLAIN, ONNX, OPENVINO]
OPTIONS: dict[str, Any] = {
    "device": "auto", "scales": (1.0,), "flip": False, "tile": "whole", "margin": MARGIN, "memory": MEMORY, "factory": None,
}  # fmt: skip


def draw(count: int) -> None:
    Path("pictures").mkdir(exist_ok=True)
    for number in range(count):
        image = np.random.default_rng(number).integers(0, 256, (6, 9, 3), np.uint8)
        Image.fromarray(image).save(f"pictures/{number:02d}.png")


def known(found: dict[Any, Any], **changed: Any) -> Speeds:
    """As a trial on such pictures leaves it in the cache: speeds, or why it failed."""
    speeds = Speeds(Path("model.safetensors"), 54, processor.name(), {**OPTIONS, **changed})
    speeds.known = {way: {"speed": one, "equal": 1.0} if isinstance(one, float) else {"failed": one} for way, one in found.items()}
    write_text(speeds.file, json.dumps({"candidates": speeds.candidates([*found])}))
    return speeds
