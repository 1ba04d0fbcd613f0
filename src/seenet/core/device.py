"""Choose the device to compute on."""

import os

import torch

from seenet.core.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str | torch.device) -> torch.device:
    """Return the device of this name.

    Args:
        name: `auto` is CUDA, else Apple's MPS, else the CPU. `cuda:1` is one device; `cuda` alone
            is the first, or under torchrun the device of this process's local rank.

    Raises:
        UsageError: the name is unknown, or this machine has no such device.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        without_cuda = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else without_cuda
    kind, _, index = name.partition(":")
    if kind not in DEVICES[1:] or (index and not index.isdigit()):
        raise UsageError(f"device {name}: unknown; expected one of {', '.join(DEVICES)}")
    if kind == "cuda":
        index = index or os.environ.get("LOCAL_RANK", "0")
        if int(index) >= torch.cuda.device_count():
            raise UsageError(
                f"device {name}: found {torch.cuda.device_count()} CUDA devices; "
                "use --device cpu or auto"
            )
        return torch.device(kind, int(index))
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device mps: not available on this machine; use --device cpu or auto")
    return torch.device(name)
