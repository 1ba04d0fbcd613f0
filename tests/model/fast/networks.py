"""Networks whose forms are compared."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from seenet.model import Segmenter
from tests.model.networks import small, spread_norms

ONEDNN = torch.backends.mkldnn.is_available()


def network(variant: str = "seenet", **options: Any) -> Segmenter:
    """Build a small network in eval mode, its norms spread."""
    torch.manual_seed(0)
    return spread_norms(small(variant, num_classes=3, **options))


def off(form: nn.Module, model: nn.Module, images: Tensor, **how: Any) -> float:
    """Return the largest difference of a form's scores from the model's in float64, relative."""
    with torch.no_grad():
        expected = copy.deepcopy(model).double().eval()(images.double(), **how)
        found = form(images, **how)
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())
