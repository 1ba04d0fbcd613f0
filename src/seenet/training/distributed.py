"""One process or several, as torchrun starts them; everything here also works in one process."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from seenet.core.errors import UsageError
from seenet.evaluation.gather import joined


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

    def from_first(self, value: int) -> int:
        """The first rank's value, on all."""
        return int(self.sum(torch.tensor(value if self.first else 0)))

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the first one's values of all floating tensors, in place."""
        floating = [tensor for tensor in tensors if tensor.is_floating_point()]
        if self.world == 1 or not floating:
            return
        # One message instead of hundreds.
        packed = torch.cat([tensor.detach().flatten() for tensor in floating])
        distributed.broadcast(packed, 0)
        for tensor, part in zip(floating, torch.split(packed, [tensor.numel() for tensor in floating]), strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Whether it is true on one rank at least; all must ask."""
        return self.sum(torch.tensor(float(flag))).item() > 0


@contextmanager
def ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that torchrun's environment names, and leave it at the end."""
    with joined(device) as (rank, world):
        yield Ranks(rank, world)
