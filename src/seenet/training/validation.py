"""Validation: the val split's score, which a stop request cuts short, and the models that are kept."""

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
from seenet.training.signals import StopRequest
from seenet.training.writing import writing

LAST = "model-last.safetensors"


class StoppablePredictor(Predictor):
    """Raises Stopped instead of looking at another picture once that is asked for: evaluation need not know of signals."""

    def __init__(self, model: Segmenter, labels: LabelSet, device: torch.device, stop: StopRequest) -> None:
        super().__init__(model, labels, device=device)
        self.stop = stop

    def stripes(self, image: np.ndarray, size: tuple[int, int] | None = None) -> Iterator[Tensor]:
        if self.stop.code:
            raise Stopped("validation was cut short", self.stop.code)
        return super().stripes(image, size)


def score(
    model: Segmenter, state: dict[str, Tensor], labels: LabelSet, val: Split, device: torch.device, group: Ranks, stop: StopRequest
) -> Evaluation:
    """Score a copy of the model with the weights `state`. Stopped, on all ranks, where one of them was asked to stop."""
    try:
        return evaluate(scorer(model, state, labels, device, stop), val, loss=True, what="validating")
    except Exception:
        # Where evaluation fails on one rank it does on all, so that all come to this vote.
        if group.any(bool(stop.code)):
            raise Stopped(f"{val.name}: stopped while validating, the step is saved; go on with --resume", stop.code or 143) from None
        raise


def scorer(model: Segmenter, state: dict[str, Tensor], labels: LabelSet, device: torch.device, stop: StopRequest) -> StoppablePredictor:
    """The predictor of a copy of the model with the weights `state`."""
    # In memory as weights from a file are: for small pictures another order is rounded otherwise, and this must count as `eval` does.
    scored = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    # And without training's faster forms: a network that has no twin to predict with runs itself.
    use_plain(scored)
    scored.load_state_dict(state)
    return StoppablePredictor(scored, labels, device, stop)


def keep_models(
    out: Path,
    model: Segmenter,
    labels: LabelSet,
    state: dict[str, Tensor],
    notes: dict[str, Any],
    result: dict[str, Any] | None,
    *,
    best: bool,
) -> None:
    """Write the weights as the last model and, with their result, as the best where they are."""
    if result is not None:
        notes = {**notes, "val": {"miou": result["miou"], "split": result["split"]}}
    with writing(out):
        if best:
            save_model(out / "model.safetensors", model, labels, state=state, notes=notes)
        if best and result is not None:
            path = out / "model.safetensors"
            scored = {**result, "model": {"file": path.name, "sha256": sha256(path)}}
            write_text(out / "val.json", json.dumps(scored, indent=1))
        # The last of them: where it is there, so are the others (`is_kept`).
        save_model(out / LAST, model, labels, state=state, notes=notes)


def is_kept(out: Path, step: int) -> bool:
    """Whether the models after this step's validation are all written."""
    return (out / LAST).is_file() and read_notes(out / LAST).get("step") == step


def best_result(out: Path) -> dict[str, Any]:
    """What `keep_models` wrote of the best validation; empty where there was none."""
    path = out / "val.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
