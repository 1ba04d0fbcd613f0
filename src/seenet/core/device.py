"""Where to compute."""

import os

import torch

from seenet.core.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str | torch.device) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU; `cuda:1` works too. UsageError: unknown or not there.

    `cuda` alone is this process's own: the first, or under torchrun the one of its local rank.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in DEVICES[1:] or (index and not index.isdigit()):
        raise UsageError(f"device {name}: unknown; expected one of {', '.join(DEVICES)}")
    if kind == "cuda":
        index = index or os.environ.get("LOCAL_RANK", "0")
        if int(index) < torch.cuda.device_count():
            return torch.device(kind, int(index))
        raise UsageError(f"device {name}: found {torch.cuda.device_count()} CUDA devices; use --device cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device mps: not available on this machine; use --device cpu or auto")
    return torch.device(name)
