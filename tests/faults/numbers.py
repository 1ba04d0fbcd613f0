"""T7, T9, T10: numbers that are not finite, batches without a label, batches of one image."""

import json
import os
import time
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from seenet.model import PEERS, VARIANTS
from tests.faults.fault import Attempt
from tests.faults.runs import train
from tests.training.tiny import losses

KINDS = ("loss-nan", "loss-inf", "gradient-nan", "gradient-inf")
FACTORY = (
    "model.factory=tests.faults.numbers:Network",
    "training.checkpoint_every=1",
    "training.steps=10",
    "training.validate_every=3",
)
LOSSES = ((), ("loss.ohem=0.7",), ("loss.auxiliary=0.4",), ("loss.class_weights=median_frequency",))
NETWORKS = (*VARIANTS, *PEERS)
POOLING = ("torchvision-deeplabv3", "smp-deeplabv3plus", "smp-upernet")
"""Peers that normalize the mean of an image over the batch, which must have at least two."""


class Network(nn.Module):
    """Convolution with a fault at one training step on one rank: SEENET_FAULT=KIND:STEP:RANK.

    KIND: `loss-nan`, `gradient-inf` ...; or `slow-60`: the step takes 60 s, after a file `waiting`.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, num_classes, 3, padding=1)
        kind, step, rank = os.environ.get("SEENET_FAULT", "none-1:0:0").split(":")
        self.what, _, value = kind.partition("-")
        self.factor, self.passes = float(value), 0
        self.step = int(step) if os.environ.get("RANK", "0") == rank else 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += self.training
        logits: Tensor = self.head(images)
        if self.training and self.passes == self.step:
            if self.what == "loss":
                return logits * self.factor
            if self.what == "gradient":
                logits.register_hook(lambda gradient: gradient * self.factor)
            else:
                Path("waiting").touch()
                time.sleep(self.factor)
        return logits


def ignored(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Set every label to void: a custom transform."""
    return {"image": image, "mask": np.full_like(mask, 255)}


def all_finite(run: Path) -> None:
    """Require finite numbers in everything that was saved."""
    for path in run.rglob("*.safetensors"):
        tensors = load_file(path).values()
        assert all(torch.isfinite(tensor).all() for tensor in tensors), f"{path.name} is not finite"


def stopped_before(run: Path, step: int) -> None:
    """Require exit code 5 of all ranks, for this step, and finite files of earlier steps."""
    for end in json.loads((run / "exit.json").read_text()).values():
        assert end["code"] == 5, end
        assert all(word in end["reason"] for word in (f"step {step}: loss", "rate", "samples")), end
    assert len(losses(run)) == step - 1
    all_finite(run)


def not_finite(ranks: int, attempt: Attempt) -> None:
    """T7: all ranks stop before the update, whichever of them has the fault."""
    kind, rank = KINDS[attempt.number % 4], attempt.number // 4 % max(ranks, 1)
    step = int(attempt.rng.integers(1, 10))
    attempt.note(f"{kind} on rank {rank}" if ranks else kind)
    fault = {"SEENET_FAULT": f"{kind}:{step}:{rank}"}
    assert train(attempt, *FACTORY, ranks=ranks, environment=fault).ends() != 0
    stopped_before(attempt.run, step)


def exploding(attempt: Attempt) -> None:
    """The rate is so large that weight decay multiplies the weights by -199 or more per step."""
    kind, rate = ("sgd", "adamw")[attempt.number % 2], attempt.rng.uniform(200, 1000)
    runaway = (f"optimizer.kind={kind}", f"optimizer.rate={rate:.3e}", "optimizer.weight_decay=1")
    train(attempt, *runaway, "training.steps=60", "training.checkpoint_every=1").ends(5)
    stopped_before(attempt.run, len(losses(attempt.run)) + 1)


def nothing_labelled(attempt: Attempt) -> None:
    void = ("transforms.custom=tests.faults.numbers:ignored", "training.steps=3")
    train(attempt, *void, *LOSSES[attempt.number]).ends(0)
    assert losses(attempt.run) == [0, 0, 0]
    all_finite(attempt.run)


def one_image(attempt: Attempt) -> None:
    name = NETWORKS[attempt.number]
    attempt.note(name)
    backbone = ["model.backbone=resnet10t"] if name in PEERS else []
    settings = ("training.batch=1", "training.steps=2", "training.validate_every=0")
    child = train(attempt, f"model.variant={name}", *backbone, *settings)
    if child.ends(2 if name in POOLING else 0) == 0:
        assert "batch norm sees 1 image" in child.said
        assert [isfinite(loss) for loss in losses(attempt.run)] == [True, True]
