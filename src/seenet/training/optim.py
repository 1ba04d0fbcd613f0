"""Optimizer with parameter groups, learning rate of each step, moving average of the weights."""

import torch
from torch import Tensor, nn

from seenet.core.settings import OptimizerSettings
from seenet.model import Segmenter


def build_optimizer(model: Segmenter, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Build SGD or AdamW over the parameters that are not frozen.

    Backbone and head have separate rates; norms and biases decay only with `decay_norms`.
    """
    backbone = set(model.backbone.parameters())
    groups = []
    for in_head in (False, True):
        for is_vector in (False, True):
            parameters = [
                parameter
                for parameter in model.parameters()
                if parameter.requires_grad
                and (parameter not in backbone) == in_head
                and (parameter.dim() == 1) == is_vector
            ]
            if parameters:
                rate = settings.rate * (settings.head_factor if in_head else 1)
                decay = 0.0 if is_vector and not settings.decay_norms else settings.weight_decay
                groups.append(
                    {"params": parameters, "lr": rate, "base_rate": rate, "weight_decay": decay}
                )
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, lr=settings.rate, momentum=settings.momentum)
    return torch.optim.AdamW(groups, lr=settings.rate, betas=settings.betas)


def rate_factor(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Return the learning rate of step 0..steps-1 divided by the base rate.

    Source: (1 - step / steps) ** power (Sec. 4), times a linear warm-up.
    """
    warmup = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return float(warmup * (1 - step / steps) ** settings.power)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_rate"] * factor


class EMA:
    """Exponential moving average of the weights: average = d * average + (1 - d) * weights.

    d = min(decay, (1 + n) / (10 + n)) after n updates, so that the initial weights fade quickly.
    Batch norm statistics are averaged too; counters are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state = {key: value.detach().clone() for key, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Average in the weights after a step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)

    def load(self, state: dict[str, Tensor], updates: int) -> None:
        """Load the average from a checkpoint."""
        for key, value in state.items():
            self.state[key].copy_(value)
        self.updates = updates
