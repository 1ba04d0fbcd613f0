"""Small networks with batch norms as training leaves them, or worse."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seenet.model import Segmenter
from tests.model.networks import small


def spread_norms(model: nn.Module) -> None:
    """Randomize statistics and affine maps of every batch norm.

    Variances are from 1e-4 to 1e4, made up for by gamma; every third gamma is negative, every
    fifth 0.
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


def network(variant: str = "seenet", **options: Any) -> Segmenter:
    """Build a small network in eval mode, its norms spread."""
    torch.manual_seed(0)
    model = small(variant, num_classes=3, **options).eval()
    spread_norms(model)
    return model


def off(form: nn.Module, model: nn.Module, images: Tensor, **how: Any) -> float:
    """Return the largest difference of a form's scores from the model's in float64, relative."""
    with torch.no_grad():
        expected = copy.deepcopy(model).double().eval()(images.double(), **how)
        found = form(images, **how)
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())
