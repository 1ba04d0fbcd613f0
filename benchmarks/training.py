"""Line 1: a training step of each contestant, interleaved."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from benchmarks import contestants
from benchmarks.cases import Case
from benchmarks.measuring import Work, interleaved, matmul
from seenet.core.settings import Recipe
from seenet.distributed import Ranks
from seenet.training.trainer import Trainer

RATE = 0.001


def measure(case: Case) -> dict[str, Any]:
    """Measure all contestants and a matrix product (`interleaved`)."""
    with ExitStack() as stack:
        works = {name: stack.enter_context(step(name, case)) for name in contestants.CONTESTANTS}
        return interleaved({**works, "matmul": matmul()}, seconds=case.seconds)


@contextmanager
def step(name: str, case: Case) -> Iterator[Work]:
    """Yield a training step of a contestant on random pictures and labels."""
    torch.manual_seed(0)
    images = torch.randn(case.batch, 3, *case.size).contiguous(memory_format=torch.channels_last)
    masks = torch.randint(contestants.CLASSES, (case.batch, *case.size))
    if name != "seenet":
        yield contestants.plain_step(
            contestants.network(name, case.backbone), images, masks, bf16=case.precision == "bf16"
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        yield _trainer_step(case, Path(folder), images, masks)


def _trainer_step(case: Case, folder: Path, images: torch.Tensor, masks: torch.Tensor) -> Work:
    """Return an update of the project's trainer, without its loader.

    The pictures in `folder` only serve to name the classes.
    """
    recipe, out = _recipe(case, _pictures(folder / "data", case.size)), folder / "run"
    out.mkdir()
    trainer = Trainer(recipe, out, torch.device("cpu"), Ranks())
    draws = torch.zeros(case.batch, 2, dtype=torch.long)
    return lambda: trainer.update(((images, masks, draws),))


def _recipe(case: Case, data: Path) -> Recipe:
    return Recipe.model_validate({
        "data": {"kind": "folder", "root": data, "val": None},
        "model": {
            "backbone": case.backbone,
            "output_stride": contestants.BACKBONES[case.backbone],
            **contestants.options(case.backbone),
        },
        "transforms": {"crop": case.size},
        "optimizer": {"rate": RATE},
        "training": {"steps": 1000, "batch": case.batch, "precision": case.precision},
    })  # fmt: skip


def _pictures(folder: Path, size: tuple[int, int]) -> Path:
    rng = np.random.default_rng(0)
    for name, shape, most in (("images", (*size, 3), 256), ("masks", size, contestants.CLASSES)):
        (folder / name).mkdir(parents=True)
        for index in range(2):
            Image.fromarray(rng.integers(0, most, shape, dtype=np.uint8)).save(
                folder / name / f"{index}.png"
            )
    description = {"classes": list(contestants.LABELS.classes), "decode": "index", "val": 0}
    (folder / "seenet.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    return folder
