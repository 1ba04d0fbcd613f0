"""The optimizer's groups and the rate of each step."""

import torch

from seenet.core.settings import OptimizerSettings
from seenet.model import Segmenter


def build_optimizer(model: Segmenter, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """SGD or AdamW over what is not frozen: backbone and head with their rates, norms and biases with or without decay."""
    backbone = set(model.backbone.parameters())
    groups = []
    for in_head in (False, True):
        for is_vector in (False, True):
            parameters = [
                parameter
                for parameter in model.parameters()
                if parameter.requires_grad and (parameter not in backbone) == in_head and (parameter.dim() == 1) == is_vector
            ]
            if parameters:
                rate = settings.rate * (settings.head_factor if in_head else 1)
                decay = 0.0 if is_vector and not settings.decay_norms else settings.weight_decay
                groups.append({"params": parameters, "lr": rate, "base_rate": rate, "weight_decay": decay})
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, lr=settings.rate, momentum=settings.momentum)
    return torch.optim.AdamW(groups, lr=settings.rate, betas=settings.betas)


def rate_factor(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Rate of step 0..steps-1 over the base rate: (1 - step / steps) ** power (Sec. 4), times a linear warm-up."""
    warmup = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return float(warmup * (1 - step / steps) ** settings.power)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_rate"] * factor
