"""Networks with batch norms as training leaves them, or worse."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seenet.model import Segmenter, create_model


def spread_norms(model: nn.Module, seed: int = 0) -> None:
    """Random statistics and affine maps; every fifth gamma 0, every third negative, variances from 1e-4 to 1e4 that gamma makes up for."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in model.modules():
            if not isinstance(norm, _BatchNorm):
                continue
            count = norm.num_features
            spread = 10 ** torch.empty(count).uniform_(-4, 4, generator=generator)
            norm.running_var.copy_(spread)
            norm.running_mean.copy_(torch.randn(count, generator=generator) * 0.3)
            norm.weight.copy_(torch.empty(count).uniform_(0.5, 1.2, generator=generator) * (spread + norm.eps).sqrt())
            norm.weight[::3] *= -1
            norm.weight[::5] = 0
            norm.bias.copy_(torch.randn(count, generator=generator) * 0.3)


def network(variant: str = "seenet", backbone: str = "resnet10t", **options: object) -> Segmenter:
    """Small, in eval mode, its norms spread."""
    torch.manual_seed(0)
    model = create_model(variant, backbone=backbone, num_classes=3, **{"width": 8, "p_out": 16, **options})
    spread_norms(model)
    return model.eval()


def off(form: nn.Module, model: nn.Module, images: Tensor, **how: object) -> float:
    """The largest difference of a form's scores from the plain model's in float64, relative to the largest of these."""
    with torch.no_grad():
        expected = copy.deepcopy(model).double().eval()(images.double(), **how)
        found = form(images, **how)
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())
