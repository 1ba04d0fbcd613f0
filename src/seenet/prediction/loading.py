"""A predictor from a model's name."""

from collections.abc import Sequence
from pathlib import Path

from seenet.model.files import load_model
from seenet.prediction.predictor import Predictor


def load(
    name: str | Path,
    device: str = "auto",
    precision: str = "fp32",
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    factory: str | None = None,
) -> Predictor:
    """Read a model by run folder, .safetensors file or bundled name, ready to predict.

    `factory`: for a network of `model.factory`, its name again, since no file may choose what code runs.
    Raises DataError: no such model, or a damaged file; UsageError: settings that make no sense.
    """
    saved = load_model(name, factory=factory)
    info = {"file": str(saved.path), "sha256": saved.sha256}
    return Predictor(saved.model, saved.labels, device=device, precision=precision, scales=scales, flip=flip, info=info)
