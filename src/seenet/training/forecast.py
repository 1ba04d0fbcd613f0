"""What a run will take, from two of its own full-size steps (`seenet train RECIPE --dry-run`)."""

import resource
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import torch

from seenet.core.device import choose_device
from seenet.core.settings import Recipe
from seenet.evaluation.evaluator import evaluate
from seenet.model.summary import dead_taps
from seenet.training.learner import Learner
from seenet.training.logging import memory_mib
from seenet.training.setup import ALONE, step_batches
from seenet.training.signals import StopRequest
from seenet.training.validation import scorer

STEPS = 2
"""Tried, and as many validations of an image; the last counts, since the first also sets up."""


@dataclass(frozen=True)
class Forecast:
    """Of one process on this machine: seconds of a step and of a validation image, hours of the run, peak memory over the idle process."""

    step_seconds: float
    image_seconds: float
    hours: float
    memory_mib: float
    train_images: int
    val_images: int
    precision: str
    warnings: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        return [
            f"train images {self.train_images}, val images {self.val_images}, precision {self.precision}",
            f"a step takes {self.step_seconds:.2f} s, a validation image {self.image_seconds:.2f} s",
            f"the whole run takes about {self.hours:.2f} hours and {self.memory_mib:.0f} MiB over the idle process",
            *self.warnings,
        ]


def forecast(recipe: Recipe, device: str = "auto") -> Forecast:
    """Train the run's first two steps, by the trainer's own update, and validate one image; nothing is written.

    Raises what `train` would raise until then.
    """
    where = choose_device(device)
    training = recipe.training
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
    idle = memory_mib(where)
    learner = Learner(recipe, where, ALONE, "dry run")
    data = learner.data
    seconds = []
    # Also of a run of one step, of which the loader would give no second.
    drawn = recipe.model_copy(update={"training": training.model_copy(update={"steps": STEPS})})
    with closing(step_batches(drawn, data, learner.model, first_step=0, rank=ALONE.rank, world=ALONE.world)) as batches:
        for _ in range(STEPS):
            started = time.perf_counter()
            learner.update(next(batches))
            learner.step += 1
            seconds.append(time.perf_counter() - started)
    peak = (
        torch.cuda.max_memory_allocated(where) / 2**20
        if where.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    validations, image_seconds = 0, 0.0
    if data.val is not None:
        weights = learner.ema.state if learner.ema else learner.model.state_dict()
        predictor = scorer(learner.model, weights, data.train.labels, where, StopRequest())
        for _ in range(STEPS):
            started = time.perf_counter()
            evaluate(predictor, data.val, indices=[0], loss=True)
            image_seconds = time.perf_counter() - started
        validations = max(1, training.steps // training.validate_every if training.validate_every else 1)
    val_images = len(data.val) if data.val is not None else 0
    total = seconds[-1] * training.steps + validations * val_images * image_seconds
    return Forecast(
        seconds[-1],
        image_seconds,
        total / 3600,
        peak - idle,
        len(data.train),
        val_images,
        learner.precision.name,
        dead_taps(learner.model, recipe.transforms.crop),
    )
