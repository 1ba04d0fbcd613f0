"""Several processes, as torchrun starts them: the scores of all, in every one of them."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import numpy as np

from seenet.core.errors import DataError
from seenet.core.processes import ranks
from seenet.evaluation.heartbeat import beating
from seenet.evaluation.scores import ImageScore

FAILED = -1
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


def gather_scores(score: Callable[[], list[ImageScore]], device: Any) -> list[ImageScore]:
    """Run `score` here and return the scores of all ranks by index.

    What it raises is raised here once the others know, so that none waits for a rank that gave up.
    """
    _, world = ranks()
    if world == 1:
        return score()
    try:
        mine = pack(score())
    except Exception:
        _sizes(FAILED, world, device)
        raise
    sizes = _sizes(len(mine), world, device)
    if FAILED in sizes:
        raise DataError(f"rank {sizes.index(FAILED)} could not score its pictures; its own message says why")
    import torch
    from torch import distributed

    # Collectives want one size for all; plain integers, so that nothing is pickled on the way.
    padded = torch.zeros(max(sizes), dtype=torch.int64, device=device)
    padded[: len(mine)] = torch.from_numpy(mine).to(device)
    parts = [torch.empty_like(padded) for _ in range(world)]
    distributed.all_gather(parts, padded)
    scores = [item for part, size in zip(parts, sizes, strict=True) for item in unpack(part[:size].cpu().numpy())]
    return sorted(scores, key=lambda item: item.index)


def _sizes(size: int, world: int, device: Any) -> list[int]:
    import torch
    from torch import distributed

    parts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world)]
    distributed.all_gather(parts, torch.tensor([size], dtype=torch.int64, device=device))
    return [int(part) for part in parts]


def pack(scores: list[ImageScore]) -> np.ndarray:
    """Scores as one int64 array; for each: index, outlined, bits of the loss, number of arrays that follow, their sizes,
    the arrays (cells, counts, what measures counted).
    """
    parts = []
    for score in scores:
        bits = np.array([score.loss], np.float64).view(np.int64)[0]
        arrays = (score.cells, score.counts, *score.measured)
        parts.append(np.array([score.index, score.outlined, bits, len(arrays), *map(len, arrays)], np.int64))
        parts += [array.astype(np.int64) for array in arrays]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def unpack(flat: np.ndarray) -> list[ImageScore]:
    """The scores that `pack` made `flat` of."""
    scores, at = [], 0
    while at < len(flat):
        index, outlined, _, many = (int(value) for value in flat[at : at + 4])
        loss = float(flat[at + 2 : at + 3].view(np.float64)[0])
        ends = at + 4 + many + np.cumsum(flat[at + 4 : at + 4 + many])
        cells, counts, *measured = (array.copy() for array in np.split(flat[: ends[-1]], [at + 4 + many, *ends[:-1]])[1:])
        scores.append(ImageScore(index, cells, counts, bool(outlined), loss, tuple(measured)))
        at = int(ends[-1])
    return scores
