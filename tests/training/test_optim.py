"""Groups and rates by value."""

import pytest
import torch

from seenet.core.settings import OptimizerSettings
from seenet.model import create_model
from seenet.training.optim import build_optimizer, rate_factor, set_rate


def test_poly_with_warmup_by_value() -> None:
    settings = OptimizerSettings(power=0.9)
    assert rate_factor(0, 10, settings) == 1
    assert rate_factor(5, 10, settings) == pytest.approx(0.5**0.9)
    assert rate_factor(9, 10, settings) == pytest.approx(0.1**0.9)
    warm = OptimizerSettings(power=1, warmup=4)
    assert [rate_factor(step, 10, warm) for step in range(5)] == pytest.approx([0.25, 0.5 * 0.9, 0.75 * 0.8, 0.7, 0.6])


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_groups_cover_all_parameters_with_their_rates_and_decay(kind: str) -> None:
    model = create_model(backbone="resnet10t", num_classes=3, width=8, p_out=16)
    settings = OptimizerSettings(kind=kind, rate=0.1, head_factor=4, weight_decay=0.5, decay_norms=False)
    optimizer = build_optimizer(model, settings)
    found = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    assert len(found) == len(list(model.parameters()))
    set_rate(optimizer, 0.5)
    for name, parameter in model.named_parameters():
        group = found[id(parameter)]
        assert group["lr"] == pytest.approx(0.05 if name.startswith("backbone.") else 0.2), name
        assert group["weight_decay"] == (0 if parameter.dim() == 1 else 0.5), name
    assert isinstance(optimizer, torch.optim.SGD if kind == "sgd" else torch.optim.AdamW)


def test_frozen_parameters_have_no_optimizer() -> None:
    model = create_model(backbone="resnet10t", num_classes=3, width=8, p_out=16)
    model.backbone.requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerSettings())
    inside = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert inside == {id(parameter) for name, parameter in model.named_parameters() if not name.startswith("backbone.")}
