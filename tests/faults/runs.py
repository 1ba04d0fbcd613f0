"""A training run of seconds with steps, validations and checkpoints; comparison of two runs."""

import json
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.faults.fault import Attempt
from tests.faults.processes import Child, seenet

STEPS, VALIDATE_EVERY = 12, 6
SETTINGS = (
    "model.backbone=test_efficientnet", "model.width=8", "model.p_out=16", "model.weights=null",
    "data.size=48", "data.count=30", "transforms.crop=48", "transforms.jitter=0.2",
    f"training.steps={STEPS}", f"training.validate_every={VALIDATE_EVERY}", "training.batch=4",
    "training.checkpoint_every=2", "training.ema=0.9", "training.precision=fp32",
    "training.workers=0",
)  # fmt: skip
TIMING = {"images_per_s", "memory_mib", "waited"}


def train(
    attempt: Attempt,
    *settings: str,
    resume: bool = False,
    ranks: int = 0,
    environment: dict[str, str] | None = None,
) -> Child:
    """Start or resume the training run of a try."""
    words = [*SETTINGS, *settings, "--device", "cpu", "--out", str(attempt.run)]
    words += ["--resume"] if resume else []
    return seenet(attempt, "train", "shapes", *words, environment=environment, ranks=ranks)


@cache
def reference() -> Path:
    """Return an uninterrupted run, which this process keeps."""
    attempt = Attempt(0, Path(tempfile.mkdtemp(prefix="fault-reference-")))
    train(attempt).ends(0)
    return attempt.run


def lines(run: Path) -> list[dict[str, Any]]:
    """Read the complete lines of metrics.jsonl, without times and memory."""
    path = run / "metrics.jsonl"
    written = path.read_text().splitlines(keepends=True) if path.exists() else []
    entries = [json.loads(line) for line in written if line.endswith("\n")]
    return [{key: entry[key] for key in entry.keys() - TIMING} for entry in entries]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in lines(run) if "loss" in line]


def same(run: Path) -> None:
    """Require the losses, scores, counts and weights of the uninterrupted run, bit for bit."""
    other = reference()
    assert lines(run) == lines(other)
    scores = [json.loads((folder / "val.json").read_text()) for folder in (run, other)]
    assert scores[0]["confusion"] == scores[1]["confusion"]
    last = f"checkpoints/step-{STEPS:08d}"
    for name in ("model", "model-last", f"{last}/model", f"{last}/ema", f"{last}/optimizer"):
        first, second = (load_file(folder / f"{name}.safetensors") for folder in (run, other))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), f"{name} differs"


def moment(run: Path) -> str:
    """Return what a killed run was doing, as its files show."""
    entries = lines(run)
    step, last = (entries[-1]["step"], entries[-1]) if entries else (0, {})
    saved = (run / f"checkpoints/step-{step:08d}").exists()
    moments = {
        "before it had begun": not (run / "recipe.yaml").exists(),
        "saving a checkpoint": any(run.glob("checkpoints/.*")),
        "start-up": not entries,
        "validation": saved and "val" not in last and step % VALIDATE_EVERY == 0,
        "writing the models": step == STEPS,
        "training": True,
    }
    return next(name for name, holds in moments.items() if holds)


def until_training(attempt: Attempt, child: Child, seconds: float = 0) -> None:
    """Wait for a random number of steps, and up to so many seconds more."""
    enough = int(attempt.rng.integers(1, STEPS))
    child.until(lambda: len(losses(attempt.run)) >= enough, "steps are made")
    time.sleep(attempt.rng.uniform(0, seconds))
