"""Plans of small networks, runs that look trained, and a double of the training."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from seenet.core.recipe_files import dump
from seenet.experiments.plan import Plan, Run, make_plan

TINY = [
    "model.backbone=resnet10t", "model.weights=null", "model.width=8", "model.p_out=16",
    "data.size=48", "data.count=20", "transforms.crop=48", "training.steps=2", "training.batch=2",
    "training.workers=0", "training.validate_every=0",
]  # fmt: skip


def tiny_plan(
    out: Path,
    *,
    rows: str | None = "c,j",
    seeds: int = 2,
    vary: Sequence[str] = (),
    reference: str | None = None,
    settings: Sequence[str] = (),
    recipe: str | Path = "shapes",
) -> Plan:
    settings = [*TINY, *settings]
    return make_plan(
        recipe, settings, out, rows=rows, seeds=seeds, vary=list(vary), reference=reference
    )


def pretend_trained(run: Run, miou: float, *, code: int = 0, **protocol: object) -> None:
    """Write the files of a run's folder that an ablation reads."""
    result = {"miou": miou, "data": "shapes", "split": "val", "images": 50, "step": 2, **protocol}
    steps = [
        {"step": 1, "loss": 1.0, "images_per_s": 2.0, "memory_mib": 300},
        {"step": 2, "loss": 0.9, "images_per_s": 4.0, "memory_mib": 310},
        {"step": 2, "val": {"miou": miou - 0.01, "loss": 1.0}},
    ]
    files = {
        "recipe.yaml": dump(run.recipe),
        "model.safetensors": "weights",
        "val.json": json.dumps(result),
        "metrics.jsonl": "".join(f"{json.dumps(step)}\n" for step in steps),
        "exit.json": json.dumps({"0": {"code": code, "reason": "done"}}),
    }
    run.folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (run.folder / name).write_text(text)


class Trainings:
    """Double of `ablate._start`: a process ends with the next of its run's `codes`, or with 0.

    With 0 it leaves a trained run.
    """

    def __init__(self) -> None:
        self.codes: dict[str, list[int]] = {}
        self.started: list[str] = []
        self.gpus: list[str | None] = []

    def start(self, run: Run, device: str, gpu: str | None) -> subprocess.Popen[bytes]:
        self.started.append(run.name)
        self.gpus.append(gpu)
        code = (self.codes.get(run.name) or [0]).pop(0)
        if code == 0:
            pretend_trained(run, 0.5)
        log = run.folder.parent / "logs" / f"{run.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("step 1\nthe loss is nan\n")
        return subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({code})"])


def start_until(ready: Callable[[], object], *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command line in a session of its own and wait until `ready`."""
    process = subprocess.Popen([sys.executable, "-m", "seenet", *arguments], start_new_session=True)
    deadline = time.monotonic() + 300
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return process


def kill(process: subprocess.Popen[bytes], run: Path) -> None:
    """Kill a runner and the training that holds the run: it has a session of its own."""
    process.kill()
    process.wait()
    os.kill(int((run / "lock").read_text().split()[-1]), signal.SIGKILL)
