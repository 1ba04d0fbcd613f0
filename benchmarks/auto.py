"""Line 3: `seenet predict` with its own choice of runtime beside plain fp32 eager, on CamVid."""

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.camvid import MISSING, camvid
from benchmarks.measuring import interleaved, ratios, spread
from seenet.core.errors import SeenetError
from seenet.core.files import find_model
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.evaluation.evaluator import evaluate
from seenet.export import auto
from seenet.export.backends import open_backend
from seenet.prediction.batch import predict_files
from seenet.prediction.loading import PredictOptions, load_trained

PICTURES = 20


def measure() -> dict[str, Any]:
    """Return the ratio of the times of `predict_files`, interleaved, and the change of mIoU."""
    root = camvid()
    if root is None:
        return {"skipped": MISSING}
    pictures = sorted((root / "val").glob("*.png"))[:PICTURES]
    with tempfile.TemporaryDirectory() as folder:
        for backend in (("onnx", "fp32"), ("openvino", "fp32")):
            with suppress(SeenetError):
                open_backend(
                    find_model("camvid-lite0"), backend, pictures, PredictOptions(device="cpu")
                )
        # Try all runtimes, however few the pictures are.
        auto.WORTH = 1e-9
        job = auto.open_chosen("camvid-lite0", pictures, Path(folder) / "chosen", device="cpu")
        predict_files(job.predictor, pictures, Path(folder) / "chosen", chooser=job)
        chosen, choice = job.predictor, job.choice
        plain = load_trained("camvid-lite0", "cpu")
        # With a hook the predictor runs the plain network.
        plain.model.register_forward_hook(lambda *_: None)
        works = {
            name: lambda predictor=predictor: predict_files(
                predictor, pictures, Path(tempfile.mkdtemp(dir=folder))
            )
            for name, predictor in (("auto", chosen), ("plain", plain))
        }
        found = interleaved(works, seconds=30)
    split = open_split(DataSettings(kind="camvid", root=root), "val")
    miou = {
        name: 100 * evaluate(predictor, split).result()["miou"]
        for name, predictor in (("auto", chosen), ("plain", plain))
    }
    seconds = found["seconds"]
    ratio = ratios(seconds["plain"], seconds["auto"])
    return {
        "values": {
            f"auto over plain{' with bf16' if machine.has_bf16() else ''}": ratio["median"],
            "auto: mIoU": abs(miou["auto"] - miou["plain"]),
        },
        "choice": {"runtime": choice.runtime, "precision": choice.precision, "why": choice.why},
        "ratio": ratio,
        "miou": miou,
        "seconds": {name: spread(times) for name, times in seconds.items()},
        "rounds": len(seconds["auto"]),
        "others": found["others"],
    }
