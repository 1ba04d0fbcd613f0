"""Groups, rates and the moving average by value."""

import pytest
import torch
from torch import nn

from seenet.core.settings import OptimizerSettings
from seenet.model import create_model
from seenet.training.optim import EMA, build_optimizer, rate_factor, set_rate


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


def test_average_by_value() -> None:
    model = nn.BatchNorm1d(1)
    ema = EMA(model, 0.5)
    assert model.num_batches_tracked is not None
    for value, expected in ((1.0, 1 - (2 / 11) * 1), (3.0, None)):
        with torch.no_grad():
            model.weight.fill_(2 * value)
            model.num_batches_tracked.fill_(int(value))
        before = ema.state["weight"].clone()
        ema.update(model)
        decay = min(0.5, (1 + ema.updates) / (10 + ema.updates))
        torch.testing.assert_close(ema.state["weight"], decay * before + (1 - decay) * 2 * value)
        assert ema.state["num_batches_tracked"] == value
        if expected is not None:
            assert decay == 2 / 11


def test_goes_on_where_it_was() -> None:
    model = nn.Linear(2, 2)
    one = EMA(model, 0.9)
    with torch.no_grad():
        model.weight.add_(1)
    one.update(model)
    other = EMA(model, 0.9)
    other.load(one.state, one.updates)
    with torch.no_grad():
        model.weight.mul_(2)
    one.update(model)
    other.update(model)
    assert all(torch.equal(one.state[key], other.state[key]) for key in one.state)
