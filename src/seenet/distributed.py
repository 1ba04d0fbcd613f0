"""Several processes, as torchrun starts them: meet, share values, gather what each has found.

A thin layer over torch.distributed; all of it works in one process too. torch is imported only where
there are several processes: a bundle is scored without it.
"""

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from seenet.core.errors import LostError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TIMEOUT = timedelta(minutes=10)
"""How long an operation waits for the other processes (`training.timeout_minutes`)."""
UNEVEN_TIMEOUT = timedelta(hours=1)
"""The same where shares of the work differ: a scan of masks, an evaluation."""
ANSWER_TIMEOUT = timedelta(seconds=10)
"""How long a process may take to answer once an operation has failed."""


class _Groups(NamedTuple):
    """gloo groups of all processes beside torch's default one.

    A failed operation closes its group's connections, so the question who is lost has a group of its own.
    """

    uneven: Any
    roll_call: Any


_groups: _Groups | None = None
_runs = count()


def rank_and_world() -> tuple[int, int]:
    """Return rank and world size of this process; (0, 1) where torch.distributed is not in use."""
    # Without torch no process group was made.
    if "torch" not in sys.modules:
        return 0, 1
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@dataclass(frozen=True)
class Ranks:
    """This process among all of a run. Every rank must call each method that is a collective operation."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def check_batch(self, batch: int, accumulate: int) -> None:
        """Raise UsageError where a step's images do not divide evenly."""
        if batch % (self.world * accumulate):
            raise UsageError(
                f"training.batch={batch}: does not divide by {self.world} processes x {accumulate} micro-batches; "
                f"use a multiple of {self.world * accumulate}"
            )

    def sum(self, value: "Tensor") -> "Tensor":
        """Sum over all ranks, in place; collective."""
        if self.world > 1:
            from torch import distributed

            distributed.all_reduce(value)
        return value

    def from_first(self, value: int) -> int:
        """Return the first rank's value on all ranks; collective."""
        import torch

        return int(self.sum(torch.tensor(value if self.first else 0)))

    def share(self, tensors: "Iterable[Tensor]") -> None:
        """Give every rank the first one's values of all floating tensors, in place; collective."""
        floating = [tensor for tensor in tensors if tensor.is_floating_point()]
        if self.world == 1 or not floating:
            return
        import torch
        from torch import distributed

        # One message instead of hundreds.
        packed = torch.cat([tensor.detach().flatten() for tensor in floating])
        distributed.broadcast(packed, 0)
        for tensor, part in zip(floating, torch.split(packed, [tensor.numel() for tensor in floating]), strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Return whether it is true on one rank at least; collective."""
        import torch

        return self.sum(torch.tensor(float(flag))).item() > 0


def all_gather(found: list[Any]) -> list[Any]:
    """Return what all ranks found, in the order of the ranks; collective.

    Waits for the other processes for an hour, not as long as a step of training does.
    """
    world = rank_and_world()[1]
    if world == 1:
        return found
    from torch import distributed

    everybody: list[list[Any]] = [[] for _ in range(world)]
    distributed.all_gather_object(everybody, found, group=_groups.uneven if _groups else None)
    return [one for rank in everybody for one in rank]


@contextmanager
def init_process_group(device: "str | torch.device", timeout: timedelta = TIMEOUT) -> Iterator[Ranks]:
    """Join the process group that torchrun's environment names, and leave it at the end.

    gloo for main memory, NCCL for CUDA's. A group that is there already is used and stays.

    Args:
        device: a name, or torch's own, as `choose_device` takes it.
        timeout: how long an operation waits for the other processes.

    Raises:
        LostError: another process is killed, frozen or gives up.
    """
    if not _launched() or rank_and_world()[1] > 1:
        yield Ranks(*rank_and_world())
        return
    import torch
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    from seenet.core.device import choose_device

    global _groups
    device = choose_device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        with naming_lost():
            store, rank, world = next(rendezvous("env://", timeout=timeout))
            # torchrun may keep its store over restarts, with the addresses of processes that are gone; and this process may have
            # had a run before.
            store = PrefixStore(f"seenet/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_runs)}", store)
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
            _groups = _Groups(
                distributed.new_group(backend="gloo", timeout=UNEVEN_TIMEOUT), distributed.new_group(backend="gloo", timeout=timeout)
            )
            if rank:
                # What all of them have to say is said once.
                logging.getLogger("seenet").setLevel(logging.WARNING)
            yield Ranks(rank, world)
    finally:
        _groups = None
        if distributed.is_initialized():
            distributed.destroy_process_group()


@contextmanager
def naming_lost() -> Iterator[None]:
    """Raise LostError instead of what a failed operation with the other processes raises in the block."""
    try:
        yield
    except RuntimeError as error:
        if not _launched() or not _of_operation(error):
            raise
        raise _lost(error) from None


def _launched() -> bool:
    """Return whether torchrun's environment names several processes."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def _of_operation(error: RuntimeError) -> bool:
    """Return whether it comes from gloo, NCCL or the store; gloo has no class of error of its own."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)


def _lost(error: RuntimeError) -> LostError:
    """Ask all processes whether they are there: the first one learns who does not answer, the others whether it does."""
    from torch import distributed

    first = rank_and_world()[0] == 0
    who = "another process has ended, its own line or torchrun's says why"
    if _groups is not None:
        try:
            # The first one must know before the others give up on it, since torchrun ends all when one has ended.
            distributed.monitored_barrier(_groups.roll_call, ANSWER_TIMEOUT if first else 2 * ANSWER_TIMEOUT, wait_all_ranks=True)
            who = "all processes answer now"
        except RuntimeError as silent:
            named = re.search(r"Ranks? (\d+(?:, *\d+)*) failed to pass", str(silent))
            if named:
                who = f"rank {named[1]} does not answer, it is frozen or hangs"
            elif not first and "closed by peer" not in str(silent):
                who = "rank 0 does not answer, it is frozen or hangs"
    what = " ".join(str(error).split())[:200]
    return LostError(f"{who}; go on with --resume (train) or the same command (eval); torch says: {what}")
