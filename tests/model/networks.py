"""Small networks and images for the tests of the model."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from seenet.model import Segmenter, create_model

SMALL: dict[str, Any] = {"backbone": "resnet10t", "num_classes": 5, "width": 8, "p_out": 16}


def small(variant: str = "seenet", **options: Any) -> Segmenter:
    """Build a small network, in training mode, with random weights."""
    return create_model(variant, **SMALL | options)


def spread_norms(model: Any) -> Any:
    """Give every batch norm statistics and affine maps of its own, as training does, or worse.

    Variances are from 1e-4 to 1e4, made up for by gamma; every third gamma is negative, every
    fifth 0.

    Returns the model in eval mode.
    """
    generator = torch.Generator().manual_seed(0)
    for norm in model.modules():
        if not isinstance(norm, _BatchNorm):
            continue
        count = norm.num_features
        spread = 10 ** torch.empty(count).uniform_(-4, 4, generator=generator)
        gamma = torch.empty(count).uniform_(0.5, 1.2, generator=generator)
        gamma *= (spread + norm.eps).sqrt()
        gamma[::3] *= -1
        gamma[::5] = 0
        mean, beta = 0.3 * torch.randn(2, count, generator=generator)
        state = {"running_mean": mean, "running_var": spread, "weight": gamma, "bias": beta}
        norm.load_state_dict(state, strict=False)
    return model.eval()


def images(height: int, width: int, count: int = 1) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))
