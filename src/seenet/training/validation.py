"""Validation: score the val split, stop on request, and write the best and the last model."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seenet.core.errors import Stopped
from seenet.core.files import sha256, write_text
from seenet.core.labels import LabelSet
from seenet.data import Split
from seenet.distributed import Ranks
from seenet.evaluation.evaluator import Evaluation, evaluate
from seenet.model import Segmenter
from seenet.model.fast import use_plain
from seenet.model.files import read_notes, save_model
from seenet.prediction.predictor import Predictor
from seenet.training.run import StopRequest, writing

LAST = "model-last.safetensors"


class StoppablePredictor(Predictor):
    """Predictor that raises Stopped before an image, so that evaluation ignores signals."""

    def __init__(
        self, model: Segmenter, labels: LabelSet, device: torch.device, stop: StopRequest
    ) -> None:
        super().__init__(model, labels, device=device)
        self.stop = stop

    def row_chunks(
        self, image: np.ndarray, size: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        if self.stop.code:
            raise Stopped("validation was interrupted", self.stop.code)
        return super().row_chunks(image, size)


def validation_predictor(
    model: Segmenter,
    state: dict[str, Tensor],
    labels: LabelSet,
    device: torch.device,
    stop: StopRequest,
) -> StoppablePredictor:
    """Return a predictor of a copy of the model with the weights `state`."""
    # The memory format of weights from a file: for small images another format rounds differently,
    # and the counts must equal those of `eval`.
    scored = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    # Without training's faster forms, which a network without a prediction twin would keep.
    use_plain(scored)
    scored.load_state_dict(state)
    return StoppablePredictor(scored, labels, device, stop)


def score(predictor: StoppablePredictor, val: Split, group: Ranks) -> Evaluation:
    """Score the predictor on the val split; collective.

    Raises:
        Stopped: On all ranks, if one of them was asked to stop.
    """
    try:
        return evaluate(predictor, val, loss=True, what="validating")
    except Exception:
        # Evaluation that fails on one rank fails on all, so all ranks take this vote.
        if group.any(bool(predictor.stop.code)):
            raise Stopped(
                f"{val.name}: stopped while validating, the step is saved; continue with --resume",
                predictor.stop.code or 143,
            ) from None
        raise


def save_models(
    out: Path,
    model: Segmenter,
    labels: LabelSet,
    state: dict[str, Tensor],
    notes: dict[str, Any],
    result: dict[str, Any] | None,
    *,
    best: bool,
) -> None:
    """Write the weights as the last model and, with `best`, as the best model."""
    if result is not None:
        notes = {**notes, "val": {"miou": result["miou"], "split": result["split"]}}
    with writing(out):
        if best:
            path = out / "model.safetensors"
            save_model(path, model, labels, state=state, notes=notes)
            if result is not None:
                scored = {**result, "model": {"file": path.name, "sha256": sha256(path)}}
                write_text(out / "val.json", json.dumps(scored, indent=1))
        # Written last: if it exists, so do the others (`models_written`).
        save_model(out / LAST, model, labels, state=state, notes=notes)


def models_written(out: Path, step: int) -> bool:
    """Return whether all models after this step's validation are written."""
    return (out / LAST).is_file() and read_notes(out / LAST).get("step") == step


def best_result(out: Path) -> dict[str, Any]:
    """Read the best validation that `save_models` wrote; empty if there was none."""
    path = out / "val.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
