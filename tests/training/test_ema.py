"""The moving average by value."""

import torch
from torch import nn

from seenet.training.ema import EMA


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
