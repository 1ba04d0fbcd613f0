"""A network and transforms that go wrong when told to by SEENET_FAULT: KIND:STEP:RANK."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BAD = {"nan": float("nan"), "inf": float("inf")}


class Spoiled(torch.autograd.Function):
    """Passes values through, and spoils the gradient."""

    @staticmethod
    def forward(context: Any, values: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return values.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient * context.factor, None


class Network(nn.Module):
    """One convolution; at one step of training, on one rank, its scores or their gradients are not finite."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, classes, 3, padding=1)
        kind, step, rank = os.environ.get("SEENET_FAULT", "none:0:0").split(":")
        self.what, _, self.value = kind.partition("-")
        self.step, self.here, self.passes = int(step), os.environ.get("RANK", "0") == rank, 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += self.training
        scores: Tensor = self.head(images)
        if not (self.training and self.here and self.passes == self.step):
            return scores
        return (
            scores * BAD[self.value]
            if self.what == "loss"
            else Spoiled.apply(scores, BAD[self.value])
        )  # type: ignore[no-untyped-call]


def build(num_classes: int) -> nn.Module:
    return Network(num_classes)


def ignored(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Every label is void."""
    return {"image": image, "mask": np.full_like(mask, 255)}


def slow(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Once a file `slow` is in the working folder, a sample takes a minute; `waiting` says so."""
    if Path("slow").exists():
        Path("waiting").touch()
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.01)
    return {"image": image, "mask": mask}
