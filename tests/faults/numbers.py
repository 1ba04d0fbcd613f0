"""T7, T9, T10: numbers that are not finite, batches without a label, batches of one."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file

from seenet.model import PEERS, VARIANTS
from tests.faults.fault import Attempt, Fault, expect
from tests.faults.processes import seenet, torchrun
from tests.faults.runs import lines, steps_made, words

KINDS = ("loss-nan", "loss-inf", "gradient-nan", "gradient-inf")
FACTORY = (
    "model.factory=tests.faults.network:build",
    "training.checkpoint_every=1",
    "training.steps=10",
    "training.validate_every=3",
)
LOSSES = ((), ("loss.ohem=0.7",), ("loss.auxiliary=0.4",), ("loss.class_weights=median_frequency",))
NETWORKS = (*VARIANTS, *PEERS)
POOLING = ("torchvision-deeplabv3", "smp-deeplabv3plus", "smp-upernet")
"""Peers that normalise the mean of a picture over the batch: of one picture nothing would be left."""


def all_finite(run: Path) -> None:
    """Nothing that was saved holds a number that is not finite."""
    for path in run.rglob("*.safetensors"):
        wrong = [name for name, value in load_file(path).items() if not torch.isfinite(value).all()]
        expect(not wrong, f"{path.name} is not finite: {', '.join(wrong[:3])}")


def told(run: Path, step: int, said: str) -> None:
    (line,) = [line for line in said.splitlines() if line.startswith("seenet: ")]
    expect(
        f"step {step}: loss" in line and "rate" in line and "samples train-" in line, f"said {line}"
    )
    expect(steps_made(run) == step - 1, f"{steps_made(run)} steps were kept of {step - 1}")
    all_finite(run)


def not_finite(attempt: Attempt) -> None:
    run, kind, step = (
        attempt.folder / "run",
        KINDS[attempt.number % 4],
        int(attempt.rng.integers(1, 10)),
    )
    attempt.note(kind)
    child = seenet(attempt, *words(run, *FACTORY), environment={"SEENET_FAULT": f"{kind}:{step}:0"})
    expect(child.wait() == 5, f"ended with {child.code}: {child.last_line()}")
    told(run, step, child.said())


def not_finite_on_one_rank(attempt: Attempt) -> None:
    """Both stop before the update, whichever of them it is."""
    run, kind, step = (
        attempt.folder / "run",
        KINDS[attempt.number % 4],
        int(attempt.rng.integers(1, 10)),
    )
    fault = f"{kind}:{step}:{attempt.number // 4 % 2}"
    attempt.note(fault.rpartition(":")[0].partition(":")[0] + f" on rank {fault[-1]}")
    child = torchrun(attempt, *words(run, *FACTORY), environment={"SEENET_FAULT": fault})
    expect(child.wait() != 0, "torchrun says that all went well")
    entries = json.loads((run / "exit.json").read_text())
    codes = {rank: entry["code"] for rank, entry in entries.items()}
    expect(codes == {"0": 5, "1": 5}, f"exit.json says {codes}")
    expect(
        all(f"step {step}: loss" in entry["reason"] for entry in entries.values()),
        "a reason does not name the step",
    )
    expect(steps_made(run) == step - 1, "the step was made all the same")
    all_finite(run)


def exploding(attempt: Attempt) -> None:
    """A rate so large that its weight decay multiplies the weights by -100 and more in every step."""
    run, kind = attempt.folder / "run", ("sgd", "adamw")[attempt.number % 2]
    rate = attempt.rng.uniform(200, 1000)
    runaway = (
        f"optimizer.kind={kind}",
        f"optimizer.rate={rate:.3e}",
        "optimizer.weight_decay=1",
        "training.steps=60",
    )
    child = seenet(attempt, *words(run, *runaway, "training.checkpoint_every=1"))
    expect(child.wait() == 5, f"ended with {child.code}: {child.last_line()}")
    told(run, steps_made(run) + 1, child.said())


def nothing_labelled(attempt: Attempt) -> None:
    run, loss = attempt.folder / "run", LOSSES[attempt.number % len(LOSSES)]
    child = seenet(
        attempt,
        *words(run, "transforms.custom=tests.faults.network:ignored", "training.steps=3", *loss),
    )
    expect(child.wait() == 0, f"ended with {child.code}: {child.last_line()}")
    losses = [line["loss"] for line in lines(run) if "loss" in line]
    expect(losses == [0, 0, 0], f"losses {losses}")
    all_finite(run)


def one_picture(attempt: Attempt) -> None:
    name = NETWORKS[attempt.number]
    attempt.note(name)
    backbone = ["model.backbone=resnet10t"] if name in PEERS else []
    settings = [
        f"model.variant={name}",
        *backbone,
        "training.batch=1",
        "training.steps=2",
        "training.validate_every=0",
    ]
    child = seenet(attempt, *words(attempt.folder / "run", *settings))
    if name in POOLING:
        expect(child.wait() == 2, f"{name}: ended with {child.code}: {child.last_line()}")
        expect(
            "gives batch norm one point; use a batch of at least 2 images" in child.last_line(),
            f"said {child.last_line()}",
        )
        return
    expect(child.wait() == 0, f"{name}: ended with {child.code}: {child.last_line()}")
    expect("batch norm sees 1 image" in child.said(), f"{name}: no warning")
    losses = [line["loss"] for line in lines(attempt.folder / "run") if "loss" in line]
    expect(len(losses) == 2 and all(map(math.isfinite, losses)), f"{name}: losses {losses}")


FAULTS = [
    Fault(
        "T7.one",
        "a loss or gradient becomes NaN or Inf at a step: exit 5 before the update, everything saved is finite",
        20,
        not_finite,
    ),
    Fault(
        "T7.ranks",
        "the same on one of two ranks: both exit 5 before the update",
        8,
        not_finite_on_one_rank,
    ),
    Fault(
        "T7.rate",
        "a learning rate of 200 to 1,000 with weight decay 1: exit 5, everything saved is finite",
        10,
        exploding,
    ),
    Fault(
        "T9",
        "every label of every batch is void: the loss is 0, the weights stay finite",
        4,
        nothing_labelled,
    ),
    Fault(
        "T10",
        "batches of one picture, each variant and peer: trains with a warning, or is refused before training if a norm sees one point",
        len(NETWORKS),
        one_picture,
    ),
]
