"""One process or several, as torchrun starts them; everything here also works in one process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from seenet.core.errors import UsageError
from seenet.prediction import device as devices

TIMEOUT = timedelta(minutes=10)
"""After this long without a word from a rank the others end."""


@dataclass(frozen=True)
class Ranks:
    """This process among all of the run."""

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")
    """Where collectives want their tensors: NCCL takes CUDA's alone."""

    @property
    def first(self) -> bool:
        return self.rank == 0

    def check_batch(self, batch: int, accumulate: int) -> None:
        """UsageError where a step's images do not divide evenly."""
        if batch % (self.world * accumulate):
            raise UsageError(
                f"training.batch={batch}: does not divide by {self.world} processes x {accumulate} micro-batches; "
                f"use a multiple of {self.world * accumulate}"
            )

    def sum(self, value: Tensor) -> Tensor:
        """Sum over all ranks, on whatever device the value is; the value itself in one process."""
        if self.world == 1:
            return value
        there = value.detach().to(self.device, copy=True)
        distributed.all_reduce(there)
        return there.to(value.device)

    def any(self, here: bool) -> bool:
        """Whether it holds on at least one rank; every rank must ask."""
        return self.sum(torch.tensor(float(here))).item() > 0

    def wait(self) -> None:
        """Until every rank is here."""
        self.any(False)


@contextmanager
def ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that torchrun's environment names (gloo on processors, NCCL on CUDA), and leave it at the end."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(distributed.get_rank(), world, device)
    finally:
        distributed.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """The device that `--device` names; under torchrun each rank takes its own GPU. UsageError for one that is not there."""
    local = os.environ.get("LOCAL_RANK", "0")
    device = devices.choose_device(name)
    if device.type == "cuda" and device.index is None:
        device = devices.choose_device(f"cuda:{local}")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
