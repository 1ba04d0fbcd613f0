"""Process groups of runs that torchrun starts: join, sum, broadcast, gather, name a lost rank.

A thin layer over torch.distributed that also works in one process. torch is imported only where
there are several processes: exported bundles are scored without it.
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
from typing import TYPE_CHECKING, Any

from seenet.core.errors import LostError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TIMEOUT = timedelta(minutes=10)
"""How long an operation waits for the other processes (`training.timeout_minutes`)."""
UNEVEN_TIMEOUT = timedelta(hours=1)
"""The same where ranks have unequal work: a scan of masks, an evaluation."""
ANSWER_TIMEOUT = timedelta(seconds=10)
"""How long rank 0 waits for answers to a roll call; the other ranks wait twice as long."""


_groups: dict[str, Any] = {}
"""gloo groups of all processes beside torch's default group: `uneven` and `roll call`.

A failed operation closes the connections of its group, so the roll call has a group of its own.
"""
_runs = count()


def rank_and_world() -> tuple[int, int]:
    """Return rank and world size of this process; (0, 1) where torch.distributed is not in use."""
    # Without torch there is no process group.
    if "torch" not in sys.modules:
        return 0, 1
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@dataclass(frozen=True)
class Ranks:
    """This process among all of a run. Every rank must call each method marked as collective."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def check_batch(self, batch: int, accumulate: int) -> None:
        """Raise UsageError where the images of a step do not divide evenly."""
        if batch % (self.world * accumulate):
            raise UsageError(
                f"training.batch={batch}: does not divide by {self.world} processes "
                f"x {accumulate} micro-batches; use a multiple of {self.world * accumulate}"
            )

    def sum(self, value: "Tensor") -> "Tensor":
        """Sum over all ranks, in place; collective."""
        if self.world > 1:
            from torch import distributed

            distributed.all_reduce(value)
        return value

    def from_first(self, value: int) -> int:
        """Return rank 0's value on all ranks; collective."""
        import torch

        return int(self.sum(torch.tensor(value if self.first else 0)))

    def share(self, tensors: "Iterable[Tensor]") -> None:
        """Copy rank 0's values to every rank, in place; collective."""
        if self.world > 1:
            from torch import distributed

            for tensor in tensors:
                distributed.broadcast(tensor.detach(), 0)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true on at least one rank; collective."""
        import torch

        return self.sum(torch.tensor(float(flag))).item() > 0


def all_gather(items: list[Any]) -> list[Any]:
    """Return the items of all ranks, in the order of the ranks; collective.

    Waits for the other processes for `UNEVEN_TIMEOUT`, not for the timeout of a training step.
    """
    world = rank_and_world()[1]
    if world == 1:
        return items
    from torch import distributed

    gathered: list[list[Any]] = [[] for _ in range(world)]
    distributed.all_gather_object(gathered, items, group=_groups.get("uneven"))
    return [item for of_rank in gathered for item in of_rank]


@contextmanager
def init_process_group(
    device: "str | torch.device", timeout: timedelta = TIMEOUT
) -> Iterator[Ranks]:
    """Join the process group that torchrun's environment describes, and leave it at the end.

    Uses gloo for main memory and NCCL for CUDA memory. An existing group is used and kept.

    Args:
        device: A name, or torch's own, as `choose_device` takes it.
        timeout: How long an operation waits for the other processes.

    Raises:
        LostError: Another process was killed, froze or gave up.
    """
    if not _launched() or rank_and_world()[1] > 1:
        yield Ranks(*rank_and_world())
        return
    import torch
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    from seenet.core.device import choose_device

    device = choose_device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        with naming_lost():
            store, rank, world = next(rendezvous("env://", timeout=timeout))
            # torchrun may keep its store over restarts, with addresses of processes that are gone;
            # and this process may have made a run before.
            restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = PrefixStore(f"seenet/{restart}/{next(_runs)}", store)
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            distributed.init_process_group(
                backend, store=store, rank=rank, world_size=world, timeout=timeout
            )
            # monitored_barrier applies its timeout on rank 0 only: the others wait as long as
            # their group does. Rank 0 must report before they give up, since torchrun ends all
            # processes when one has ended.
            for name, wait in (("uneven", UNEVEN_TIMEOUT), ("roll call", 2 * ANSWER_TIMEOUT)):
                _groups[name] = distributed.new_group(backend="gloo", timeout=wait)
            if rank:
                # Messages that all ranks would log are logged once.
                logging.getLogger("seenet").setLevel(logging.WARNING)
            yield Ranks(rank, world)
    finally:
        _groups.clear()
        if distributed.is_initialized():
            distributed.destroy_process_group()


@contextmanager
def naming_lost() -> Iterator[None]:
    """Turn the error of a failed collective operation in the block into a LostError."""
    try:
        yield
    except RuntimeError as error:
        from torch.distributed import DistError

        # gloo has no error class of its own, and names itself in some of its messages only.
        is_lost = isinstance(error, DistError) or re.search("gloo|pair closure", str(error))
        if not _launched() or not is_lost:
            raise
        raise _lost(error) from None


def _launched() -> bool:
    """Return whether torchrun's environment describes several processes."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def _lost(error: RuntimeError) -> LostError:
    """Call the roll: rank 0 learns which ranks are silent, the others whether rank 0 answers."""
    from torch import distributed

    who = "another process has ended, its own message or torchrun's gives the reason"
    if "roll call" in _groups:
        try:
            distributed.monitored_barrier(_groups["roll call"], ANSWER_TIMEOUT, wait_all_ranks=True)
            who = "all processes answer now"
        except RuntimeError as silent:
            named = re.search(r"Ranks? (\d+(?:, *\d+)*) failed to pass", str(silent))
            if named:
                who = f"rank {named[1]} does not answer, it is frozen or hangs"
            elif rank_and_world()[0] and "closed by peer" not in str(silent):
                who = "rank 0 does not answer, it is frozen or hangs"
    what = " ".join(str(error).split())[:200]
    return LostError(
        f"{who}; continue with --resume (train) or the same command (eval); torch reports: {what}"
    )
