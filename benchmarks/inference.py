"""Line 2: class scores at the picture's size by each contestant, interleaved, under one runtime.

Eager and compiled networks take normalised images; bundles (ONNX Runtime, OpenVINO) take bytes, so
they also normalise and take the argmax, for every contestant.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import contestants, machine
from benchmarks.cases import Case
from benchmarks.measuring import Work, interleaved, matmul
from seenet.export.onnx import quick_proto, to_proto, write_proto
from seenet.export.torch import trace
from seenet.model import Segmenter
from seenet.prediction.bundles.bundle import Card
from seenet.prediction.bundles.runtimes import open_bundle

BUNDLES = machine.ROOT / "build" / "bench"
"""Bundles, exported once for all cases, and again when the code changes."""


def measure(case: Case) -> dict[str, Any]:
    """Measure all contestants and a matrix product (`interleaved`)."""
    works = {name: work(name, case) for name in contestants.CONTESTANTS}
    return interleaved({**works, "matmul": matmul()}, seconds=case.seconds)


def work(name: str, case: Case) -> Work:
    """Return a pass of a contestant over random pictures."""
    if case.runtime in ("onnx", "openvino"):
        run = open_bundle(bundle(name, case.backbone, case.runtime)).run
        pictures = np.random.default_rng(0).integers(
            0, 256, (case.batch, *case.size, 3), dtype=np.uint8
        )
        return lambda: run(pictures)
    called = contestants.ready(
        name, contestants.network(name, case.backbone), compiled=case.runtime == "compiled"
    )
    images = torch.randn(case.batch, 3, *case.size).contiguous(memory_format=torch.channels_last)

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return called(images)

    if case.runtime == "compiled":
        forward()  # compiles
    return forward


def bundle(name: str, backbone: str, runtime: str) -> Path:
    """Export SeENet as `seenet export` does, without its check, the others by torch's exporter."""
    path = (
        BUNDLES / machine.sources() / f"{name}-{backbone}.{'onnx' if runtime == 'onnx' else 'xml'}"
    )
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    model = contestants.network(name, backbone)
    card = _card(model)
    if runtime == "onnx":
        write_proto(path, quick_proto(model) if name == "seenet" else to_proto(trace(model)), card)
        return path
    import openvino

    from seenet.export.openvino import write_openvino

    # Through ONNX, as the exporter does, but from the existing file.
    write_openvino(path, openvino.Core().read_model(bundle(name, backbone, "onnx")), card)
    return path


def _card(model: Segmenter) -> Card:
    mean, std = model.normalization.mean, model.normalization.std
    return Card(
        labels=contestants.LABELS,
        mean=mean,
        std=std,
        precision="fp32",
        version="0",
        model_sha256="0" * 64,
    )
