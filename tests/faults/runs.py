"""A run of seconds that goes through all there is: steps, validations, checkpoints; and whether two such runs are one."""

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tests.faults.fault import Attempt, expect
from tests.faults.processes import Child, seenet

STEPS, VALIDATE_EVERY = 12, 6
SETTINGS = (
    "model.backbone=test_efficientnet", "model.width=8", "model.p_out=16", "model.weights=null", "data.size=48", "data.count=30",
    "transforms.crop=48", "transforms.jitter=0.2", f"training.steps={STEPS}", f"training.validate_every={VALIDATE_EVERY}",
    "training.batch=4",
    "training.checkpoint_every=2", "training.ema=0.9", "training.precision=fp32", "training.workers=0",
)  # fmt: skip
TIMING = {"images_per_s", "memory_mib", "waited"}


def words(out: Path, *settings: str) -> list[str]:
    """What `seenet` is given to train into `out`."""
    return ["train", "shapes", *SETTINGS, *settings, "--device", "cpu", "--out", str(out)]


def trained(attempt: Attempt, out: Path, *settings: str, resume: bool = False) -> Child:
    """A training run from here to its end, which must be a good one."""
    child = seenet(attempt, *words(out, *settings), *(["--resume"] if resume else []))
    expect(child.wait() == 0, f"ended with {child.code}: {child.last_line()}")
    return child


@cache
def reference(*settings: str) -> Path:
    """The uninterrupted run, for as long as this process lives."""
    folder = Path(tempfile.mkdtemp(prefix="fault-reference-"))
    trained(Attempt(0, np.random.default_rng(0), folder), folder / "run", *settings)
    return folder / "run"


def lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what is of the clock; a line that is being written is left out."""
    path = run / "metrics.jsonl"
    found = (
        [
            json.loads(line)
            for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        if path.exists()
        else []
    )
    return [{key: value for key, value in line.items() if key not in TIMING} for line in found]


def steps_made(run: Path) -> int:
    return sum("loss" in line for line in lines(run))


def same(run: Path, other: Path) -> None:
    """AssertionError unless every loss, score, count and weight of two finished runs is the same, bit for bit."""
    expect(lines(run) == lines(other), "losses or validations differ")
    scores = [json.loads((folder / "val.json").read_text()) for folder in (run, other)]
    expect(scores[0]["confusion"] == scores[1]["confusion"], "the best validation differs")
    last = f"checkpoints/step-{STEPS:08d}"
    for name in ("model", "model-last", f"{last}/model", f"{last}/ema", f"{last}/optimizer"):
        first, second = (load_file(folder / f"{name}.safetensors") for folder in (run, other))
        expect(
            first.keys() == second.keys()
            and all(torch.equal(first[key], second[key]) for key in first),
            f"{name}: weights differ",
        )


def moment(run: Path) -> str:
    """What a run was doing when it was killed, from what it left."""
    checkpoints = run / "checkpoints"
    if not (run / "recipe.yaml").exists():
        return "before it had begun"
    if list(checkpoints.glob(".*")):
        return "saving a checkpoint"
    found = lines(run)
    if not found:
        return "start-up"
    due = found[-1]["step"] % VALIDATE_EVERY == 0
    if due and "val" not in found[-1] and (checkpoints / f"step-{found[-1]['step']:08d}").exists():
        return "validation"
    if found[-1]["step"] == STEPS:
        return "writing the models"
    return "training"


def copied(attempt: Attempt, source: Path, name: str = "run") -> Path:
    shutil.copytree(source, attempt.folder / name)
    return attempt.folder / name
