"""Exponential moving average of the weights."""

import torch
from torch import Tensor, nn


class EMA:
    """average <- d average + (1 - d) weights, with d = min(decay, (1 + n) / (10 + n)) so that the start is forgotten soon.

    Buffers of floating point (batch norm statistics) are averaged too; counters are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state = {key: value.detach().clone() for key, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)

    def load(self, state: dict[str, Tensor], updates: int) -> None:
        """Go on from a checkpoint."""
        for key, value in state.items():
            self.state[key].copy_(value)
        self.updates = updates
