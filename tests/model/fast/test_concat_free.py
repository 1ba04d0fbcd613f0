"""The pass without concatenations is the pass with them: scores and every gradient, in float64."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from seenet.model import VARIANTS, SeENet
from seenet.model.fast import use_fast
from seenet.model.fast.concat_free import ConcatFreeSeENet
from tests.model.networks import images, small

OTHERS = ("baseline", "pfp", "seem-fs")
"""Rows of Table 1 that do not enhance all levels, and stay as they are."""


def results(model: Any, x: Tensor) -> dict[str, Tensor]:
    scores = model(x)
    weights = torch.linspace(-1, 1, scores.numel(), dtype=scores.dtype)
    (scores * weights.view_as(scores)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"scores": scores.detach(), **gradients, **dict(model.named_buffers())}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("variant", "options"),
    [
        *((variant, {}) for variant in VARIANTS),
        ("seenet", {"refine_stride": 8}),
        ("seenet", {"output_stride": 16, "local_conv": "depthwise"}),
        ("pfp-mixed-bf", {"output_stride": 32}),
    ],
)
def test_scores_gradients_and_statistics(
    variant: str, options: dict[str, Any], training: bool
) -> None:
    torch.manual_seed(0)
    plain = small(variant, **options).double().train(training)
    fast = copy.deepcopy(plain)
    use_fast(fast)
    assert type(fast) is (SeENet if variant in OTHERS else ConcatFreeSeENet)
    x = images(50, 67, 2).double()
    expected, found = results(plain, x), results(fast, x)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        atol = 1e-9 * max(1.0, float(value.abs().max()))
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=atol, msg=name)
