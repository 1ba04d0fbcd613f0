"""How much memory a pass takes, worked out without one."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

SIDE = 512
UNKNOWN_BYTES = 1600.0
"""A pixel: somewhat more than this project's networks on ResNet-50 and 101 take."""
OVERHEAD = 1.25
"""For what convolutions reorder and pad for themselves: assumed, not measured."""


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all tensors that live at once, at their most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.living: dict[int, tuple[Any, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.living[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        self.living = {key: (reference, size) for key, (reference, size) in self.living.items() if not reference.expired()}
        self.most = max(self.most, sum(size for _, size in self.living.values()))
        return out


def pass_bytes(model: nn.Module, channels: int) -> float:
    """Bytes a pixel that a network in eval mode takes for one picture in float32, besides its weights.

    The tensors that live at once, the picture among them, in a pass over 512 x 512 pixels on torch's meta device, which computes nothing,
    and `OVERHEAD`; `UNKNOWN_BYTES` for a network that cannot run there. The same on every machine, so that tiles are.
    """
    twin = copy.deepcopy(model).to("meta", torch.float32).eval()
    try:
        with torch.inference_mode(), _Living() as living:
            twin(torch.zeros(1, channels, SIDE, SIDE, device="meta", dtype=torch.float32), own_grid=True)
    except Exception:  # of a network of the user's own, which may need real numbers
        return UNKNOWN_BYTES
    return float(living.most / SIDE**2 * OVERHEAD)
