"""A training run of seconds with steps, validations and checkpoints; comparison of two runs."""

import json
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from tests.faults.fault import Attempt
from tests.faults.processes import Child, seenet
from tests.training.tiny import lines, losses, same_weights

STEPS, VALIDATE_EVERY = 12, 6
SETTINGS = (
    "model.backbone=test_efficientnet", "model.width=8", "model.p_out=16", "model.weights=null",
    "data.size=48", "data.count=30", "transforms.crop=48", "transforms.jitter=0.2",
    f"training.steps={STEPS}", f"training.validate_every={VALIDATE_EVERY}", "training.batch=4",
    "training.checkpoint_every=2", "training.ema=0.9", "training.precision=fp32",
    "training.workers=0", "training.keep=3",
)  # fmt: skip


def train(
    attempt: Attempt,
    *settings: str,
    resume: bool = False,
    ranks: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Start or resume the training run of a try."""
    words = [*SETTINGS, *settings, "--device", "cpu", "--out", str(attempt.run)]
    words += ["--resume"] if resume else []
    return seenet(attempt, "train", "shapes", *words, environment=environment, ranks=ranks)


@cache
def reference() -> Path:
    """Return an uninterrupted run, which this process keeps."""
    attempt = Attempt(0, Path(mkdtemp(prefix="fault-reference-")))
    train(attempt).ends(0)
    return attempt.run


def same(run: Path) -> None:
    """Require the losses, scores, counts and weights of the uninterrupted run, bit for bit."""
    other, last = reference(), f"checkpoints/step-{STEPS:08d}"
    assert lines(run) == lines(other)
    scores = [json.loads((folder / "val.json").read_text()) for folder in (run, other)]
    assert scores[0]["confusion"] == scores[1]["confusion"]
    for name in ("model", "model-last", f"{last}/model", f"{last}/ema", f"{last}/optimizer"):
        assert same_weights(run, other, name), f"{name} differs"


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
