"""One process or several, as torchrun starts them; everything here also works in one process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from seenet.core.errors import UsageError

TIMEOUT = timedelta(minutes=10)
"""After this long without a word from a rank the others end."""


@dataclass(frozen=True)
class Ranks:
    """This process among all of the run."""

    rank: int = 0
    world: int = 1

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
        """Sum over all ranks; the value itself in one process."""
        if self.world > 1:
            distributed.all_reduce(value)
        return value


@contextmanager
def ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that torchrun's environment names (gloo on processors, NCCL on CUDA), and leave it at the end."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(distributed.get_rank(), world)
    finally:
        distributed.destroy_process_group()
