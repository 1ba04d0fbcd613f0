"""What a run will take, from two of its own full-size steps (`seenet train RECIPE --dry-run`)."""

import resource
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from seenet.core.settings import Recipe
from seenet.model.summary import dead_taps
from seenet.prediction.device import choose_device
from seenet.prediction.predictor import Predictor
from seenet.training.logging import memory_mib
from seenet.training.optim import build_optimizer
from seenet.training.setup import build_loss, build_model, choose_precision, memory_format, open_data, set_train_mode, step_batches

STEPS = 2
"""Tried; the last of them counts, since the first also sets up."""


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
    """Train two steps and predict one image; nothing is written. Raises what `train` would raise before its first step."""
    where = choose_device(device)
    training = recipe.training
    data = open_data(recipe)
    model = build_model(recipe, data, where)
    loss_model = build_loss(recipe, data, model, where)
    optimizer = build_optimizer(model, recipe.optimizer)
    set_train_mode(model, recipe)
    layout = memory_format(recipe)
    precision = choose_precision(recipe, model, where)
    idle = memory_mib(where)
    seconds = []
    sampled = recipe.model_copy(update={"training": training.model_copy(update={"steps": STEPS})})
    batches = step_batches(sampled, data, model, first_step=0, rank=0, world=1)
    for _ in range(STEPS):
        started = time.perf_counter()
        for batch, masks, _ in next(batches):
            with precision.autocast():
                loss = loss_model(batch.to(where, memory_format=layout), masks.to(where), torch.ones((), device=where))
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    peak = (
        torch.cuda.max_memory_allocated(where) / 2**20
        if where.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    validations, image_seconds = 0, 0.0
    if data.val is not None:
        predictor = Predictor(model, data.val.labels, device=where)
        height, width = data.val.read(0)[1].shape
        blank = np.zeros((height, width, 3), np.uint8)
        predictor.scores(blank)
        started = time.perf_counter()
        predictor.scores(blank)
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
        precision.name,
        dead_taps(model, recipe.transforms.crop),
    )
