"""This process among those of its group, as torchrun starts them; torch is not imported for it."""

import sys
from typing import Any


def ranks() -> tuple[int, int]:
    """Rank and world size; (0, 1) where torch.distributed is not in use."""
    if "torch" not in sys.modules:
        # Then no process group was made; a bundle is scored without importing torch.
        return 0, 1
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def listed(found: list[Any]) -> list[Any]:
    """What all ranks found, in the order of the ranks; every rank must call this, and waits for the others."""
    world = ranks()[1]
    if world == 1:
        return found
    from torch import distributed

    everybody: list[list[Any]] = [[] for _ in range(world)]
    distributed.all_gather_object(everybody, found)
    return [one for rank in everybody for one in rank]
