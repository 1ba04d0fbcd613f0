"""Several processes, as torchrun starts them: the scores of all, in every one of them."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any

from seenet.core.processes import ranks
from seenet.evaluation.heartbeat import beating

TIMEOUT = timedelta(hours=1)
"""How long an operation waits for a process that lives; shares of an evaluation differ. One that is lost is met sooner (`heartbeat`)."""

_runs = count()


@contextmanager
def joined(device: Any) -> Iterator[tuple[int, int]]:
    """Join the process group that torchrun's environment names, and leave it at the end; yields rank and world size.

    `device` is a name or torch's own. gloo for main memory, NCCL for CUDA's. A group that is there already is used and stays.
    Raises LostError where another process is killed, frozen or gives up.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) == 1:
        yield ranks()
        return
    import torch
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    from seenet.prediction.device import choose_device

    if distributed.is_initialized():
        yield ranks()
        return
    device = choose_device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, world = next(rendezvous("env://", timeout=TIMEOUT))
    # torchrun keeps its store over restarts, with the addresses of processes that are gone; and this process may have had a run before.
    store = PrefixStore(f"seenet/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_runs)}", store)
    with beating(store, rank, world):
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
        if rank:
            # What all of them have to say is said once.
            logging.getLogger("seenet").setLevel(logging.WARNING)
        try:
            yield rank, world
        finally:
            distributed.destroy_process_group()


def summed(values: list[int], device: Any) -> list[int]:
    """Each value's sum over all ranks, in every one of them; every rank must call this, and waits for the others."""
    if ranks()[1] == 1:
        return values
    import torch
    from torch import distributed

    from seenet.prediction.device import choose_device

    total = torch.tensor(values, dtype=torch.int64, device=choose_device(device))
    distributed.all_reduce(total)
    return [int(value) for value in total]
