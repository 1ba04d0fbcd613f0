"""Line 4: memory that a training step and a prediction add to a process with everything loaded."""

from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import contestants
from benchmarks.cases import Case
from benchmarks.measuring import alone, peak_mib
from benchmarks.training import step
from seenet.prediction.predictor import Predictor

TRAINING = Case(4, "training", "resnet50", (320, 320), 4)
PREDICTION = Case(4, "prediction", "resnet50", (1024, 2048), 1)
SMALL = (64, 96)
"""Size of a first picture, with which libraries set themselves up."""
TRIES = {"training": 3, "prediction": 1}
"""Processes of each kind: the allocator's gaps in training differ between them, by some 5 %."""
COMPARED = ("seenet", "deeplabv3")
"""Contestants of the bar."""


def measure(case: Case) -> dict[str, Any]:
    """Return the MiB of each contestant, median and all; {"error": ...} where a process died."""
    measures = {"training": _training, "prediction": _prediction}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants.CONTESTANTS}
    for number in range(TRIES[case.kind]):
        for name, tries in found.items():
            if number == 0 or name in COMPARED:
                tries.append(alone(measures[case.kind], name, case))
    errors = [
        f"{name}: {one['error']}"
        for name, tries in found.items()
        for one in tries
        if "error" in one
    ]
    if errors:
        return {"error": "; ".join(errors)}
    mib = {name: sorted(one["mib"] for one in tries) for name, tries in found.items()}
    return {
        "peak_mib": {name: round(median(tries)) for name, tries in mib.items()},
        "tries_mib": mib,
    }


def _training(name: str, case: Case) -> dict[str, Any]:
    """Measure two steps: the first one creates the optimizer's state."""
    with step(name, case) as work:
        return {"mib": round(peak_mib(lambda: (work(), work())))}


def _prediction(name: str, case: Case) -> dict[str, Any]:
    """Measure from bytes to classes: SeENet by the predictor, the others by hand."""
    model = contestants.network(name, case.backbone)
    predictor = Predictor(model, contestants.LABELS, device="cpu")

    def plain(picture: np.ndarray) -> torch.Tensor:
        mean, std = (
            torch.tensor(values)[:, None, None]
            for values in (model.normalization.mean, model.normalization.std)
        )
        with torch.inference_mode():
            pixels = (
                torch.from_numpy(picture)[None]
                .permute(0, 3, 1, 2)
                .float()
                .div(255)
                .sub(mean)
                .div(std)
            )
            return (
                model(pixels.contiguous(memory_format=torch.channels_last))
                .argmax(1)
                .to(torch.uint8)
            )

    predict = predictor.mask if name == "seenet" else plain
    predict(np.zeros((*SMALL, 3), np.uint8))
    picture = np.random.default_rng(0).integers(0, 256, (*case.size, 3), dtype=np.uint8)
    return {"mib": round(peak_mib(lambda: predict(picture)))}
