"""Optimizer groups, learning rates and the moving average, by value."""

import pytest
import torch
from torch import nn

from seenet.core.settings import OptimizerSettings
from seenet.model import create_model
from seenet.training.optim import EMA, build_optimizer, rate_factor, set_rate


def test_polynomial_rate_with_warmup() -> None:
    settings = OptimizerSettings(power=0.9)
    factors = [rate_factor(step, 10, settings) for step in (0, 5, 9)]
    assert factors == pytest.approx([1, 0.5**0.9, 0.1**0.9])
    warm = OptimizerSettings(power=1, warmup=4)
    factors = [rate_factor(step, 10, warm) for step in range(5)]
    assert factors == pytest.approx([0.25, 0.5 * 0.9, 0.75 * 0.8, 0.7, 0.6])


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("frozen", [False, True])
def test_groups_contain_all_trained_parameters_with_their_rate_and_decay(
    kind: str, frozen: bool
) -> None:
    model = create_model(backbone="resnet10t", num_classes=3, width=8, p_out=16)
    model.backbone.requires_grad_(not frozen)
    settings = {"kind": kind, "rate": 0.1, "head_factor": 4, "weight_decay": 0.5}
    optimizer = build_optimizer(model, OptimizerSettings(**settings, decay_norms=False))
    assert isinstance(optimizer, torch.optim.SGD if kind == "sgd" else torch.optim.AdamW)
    set_rate(optimizer, 0.5)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    expected = {
        id(parameter): (0.05 if name.startswith("backbone.") else 0.2, 0.5 * (parameter.dim() > 1))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    assert found == expected


def test_the_moving_average_by_value() -> None:
    model = nn.BatchNorm1d(1)
    ema = EMA(model, 0.5)
    assert model.num_batches_tracked is not None
    expected = 1.0
    for value, decay in ((1.0, 2 / 11), (3.0, 3 / 12)):
        nn.init.constant_(model.weight, 2 * value)
        model.num_batches_tracked.fill_(int(value))
        ema.update(model)
        expected = decay * expected + (1 - decay) * 2 * value
        assert ema.state["weight"].item() == pytest.approx(expected)
        assert ema.state["num_batches_tracked"] == value
