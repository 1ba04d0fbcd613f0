"""Recipes of seconds, and what tests ask of the runs that they make."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from safetensors.torch import load_file

from seenet.core.recipe_files import load_recipe
from seenet.core.settings import Recipe
from seenet.distributed import Ranks
from seenet.training.logging import read_metrics
from seenet.training.setup import Batch, step_batches
from seenet.training.trainer import Learner, Trainer

TINY = [
    "model.backbone=resnet10t", "model.width=8", "model.p_out=16", "model.weights=null",
    "data.size=48", "data.count=30", "transforms.crop=48", "training.steps=6", "training.batch=4",
    "training.workers=0", "training.validate_every=3", "training.checkpoint_every=1",
    "training.ema=0.9", "training.precision=fp32",
]  # fmt: skip
TIMING = {"images_per_s", "memory_mib", "waited"}


def recipe(*overrides: str) -> Recipe:
    return load_recipe("shapes", [*TINY, *overrides])


def trainer_of(settings: Recipe, folder: Path, group: Ranks | None = None) -> Trainer:
    return Trainer(settings, folder, torch.device("cpu"), group or Ranks())


def first_batches(learner: Learner) -> tuple[Batch, ...]:
    """Return the micro-batches of the first step."""
    return next(
        step_batches(learner.recipe, learner.data, learner.model, first_step=0, rank=0, world=1)
    )


def lines(run: Path) -> list[dict[str, Any]]:
    """Read the complete lines of metrics.jsonl, without times and memory."""
    found = read_metrics(run / "metrics.jsonl")
    return [{key: line[key] for key in line.keys() - TIMING} for line in found]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in lines(run) if "loss" in line]


def exit_codes(run: Path) -> dict[str, int | None]:
    """Read the exit code of each rank."""
    ends = json.loads((run / "exit.json").read_text())
    return {rank: end["code"] for rank, end in ends.items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def same_models(run: Path, other: Path) -> bool:
    """Return whether the best and the last model of two runs are equal bit for bit."""
    return all(same_weights(run, other, name) for name in ("model", "model-last"))


def same_weights(run: Path, other: Path, name: str = "model") -> bool:
    return equal(*(load_file(folder / f"{name}.safetensors") for folder in (run, other)))


def write_pairs(folder: Path, label: int, count: int = 8) -> None:
    """Write pairs of 48 x 48 with one label everywhere, of the classes a and b."""
    for name, mode, colour in (("images", "RGB", 0), ("masks", "L", label)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.new(mode, (48, 48), colour).save(folder / name / f"{index}.png")
    (folder / "seenet.yaml").write_text("decode: index\nclasses: [a, b]\n")


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


@contextmanager
def before_each(kind: type, method: str, call: Callable[..., object]) -> Iterator[None]:
    """Call this with the arguments of each call of a method, before the method itself."""
    original = getattr(kind, method)

    def watched(*arguments: Any, **options: Any) -> Any:
        call(*arguments)
        return original(*arguments, **options)

    with patch.object(kind, method, watched):
        yield


def signal_in(
    at: int, number: int = signal.SIGTERM, *, kind: type = Trainer, method: str = "update"
) -> AbstractContextManager[None]:
    """Send this process a signal in one of its updates, or other calls, counted from 1."""
    made = count(1)

    def strike(*_: object) -> None:
        if next(made) == at:
            signal.raise_signal(number)

    return before_each(kind, method, strike)
