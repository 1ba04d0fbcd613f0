"""How much memory a pass takes."""

import copy
from collections.abc import Callable
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
            if isinstance(tensor, Tensor) and not tensor.is_mkldnn:
                # Of the others, which are weights in oneDNN's order, torch does not tell.
                storage = tensor.untyped_storage()
                self.living[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        self.living = {key: (reference, size) for key, (reference, size) in self.living.items() if not reference.expired()}
        self.most = max(self.most, sum(size for _, size in self.living.values()))
        return out


def pass_bytes(run: Callable[[Tensor], Any], channels: int, device: torch.device | str) -> float:
    """Bytes a pixel that `run`, a pass over one picture, takes besides the weights, by a picture of 512 x 512.

    The tensors that live at once, the picture among them, and `OVERHEAD`.
    """
    with torch.inference_mode(), _Living() as living:
        run(torch.zeros(1, channels, SIDE, SIDE, device=device))
    return float(living.most / SIDE**2 * OVERHEAD)


def plain_bytes(model: nn.Module, channels: int) -> float:
    """As `pass_bytes`, of a network in eval mode and float32, on torch's meta device, which computes nothing.

    `UNKNOWN_BYTES` for a network that cannot run there.
    """
    twin = copy.deepcopy(model).to("meta", torch.float32).eval()
    try:
        return pass_bytes(lambda picture: twin(picture, own_grid=True), channels, "meta")
    except Exception:  # of a network of the user's own, which may need real numbers
        return UNKNOWN_BYTES
