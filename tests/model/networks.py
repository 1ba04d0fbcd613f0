"""Small networks and images for the tests of the model."""

from typing import Any

import torch
from torch import Tensor, nn

from seenet.model import Segmenter, create_model

SMALL: dict[str, Any] = {"backbone": "resnet10t", "num_classes": 5, "width": 8, "p_out": 16}


def small(variant: str = "seenet", **options: Any) -> Segmenter:
    """Build a small network, in training mode, with random weights."""
    return create_model(variant, **SMALL | options)


def randomize_norms(model: Any) -> Any:
    """Give every batch norm its own statistics, so that one in the wrong place changes the scores.

    Returns the model in eval mode.
    """
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def images(height: int, width: int, count: int = 1) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))
