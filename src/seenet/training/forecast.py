"""Forecast of a run from two of its own full-size steps (`seenet train RECIPE --dry-run`)."""

import resource
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import torch

from seenet.core.device import choose_device
from seenet.core.settings import Recipe
from seenet.distributed import Ranks
from seenet.evaluation.evaluator import evaluate
from seenet.model.summary import dead_taps
from seenet.training.logging import memory_mib
from seenet.training.run import StopRequest
from seenet.training.setup import step_batches
from seenet.training.trainer import Learner
from seenet.training.validation import validation_predictor

STEPS = 2
"""Measured steps, and validations of one image; only the last counts, since the first sets up."""


@dataclass(frozen=True)
class Forecast:
    """Cost of a run in one process on this machine.

    Seconds per step and per validation image, hours of the run, peak memory over the idle process.
    """

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
        """Return the forecast as text, one fact per line."""
        return [
            f"train images {self.train_images}, val images {self.val_images}, "
            f"precision {self.precision}",
            f"a step takes {self.step_seconds:.2f} s, "
            f"a validation image {self.image_seconds:.2f} s",
            f"the whole run takes about {self.hours:.2f} hours "
            f"and {self.memory_mib:.0f} MiB over the idle process",
            *self.warnings,
        ]


def forecast(recipe: Recipe, device: str = "auto") -> Forecast:
    """Train the first two steps with the trainer's own update, and validate one image.

    Writes nothing. Raises what `train` would raise up to that point.
    """
    where, training = choose_device(device), recipe.training
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
    idle = memory_mib(where)
    learner = Learner(recipe, where, Ranks(), "dry run")
    train, val = learner.data.train, learner.data.val
    step_seconds = image_seconds = 0.0
    # Two batches also of a run of one step.
    two_steps = recipe.model_copy(update={"training": training.model_copy(update={"steps": STEPS})})
    with closing(
        step_batches(two_steps, learner.data, learner.model, first_step=0, rank=0, world=1)
    ) as batches:
        for _ in range(STEPS):
            started = time.perf_counter()
            learner.update(next(batches))
            learner.step += 1
            step_seconds = time.perf_counter() - started
    peak = (
        torch.cuda.max_memory_allocated(where) / 2**20
        if where.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    total = step_seconds * training.steps
    if val is not None:
        weights = learner.ema.state if learner.ema else learner.model.state_dict()
        predictor = validation_predictor(learner.model, weights, train.labels, where, StopRequest())
        for _ in range(STEPS):
            started = time.perf_counter()
            evaluate(predictor, val, indices=[0], loss=True)
            image_seconds = time.perf_counter() - started
        every = training.validate_every or training.steps
        total += max(1, training.steps // every) * len(val) * image_seconds
    return Forecast(
        step_seconds,
        image_seconds,
        total / 3600,
        peak - idle,
        len(train),
        len(val) if val is not None else 0,
        learner.precision.name,
        dead_taps(learner.model, recipe.transforms.crop),
    )
