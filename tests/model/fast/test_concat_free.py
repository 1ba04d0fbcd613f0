"""The pass without concatenations is the pass with them: scores and every gradient, in float64."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from seenet.model import create_model
from seenet.model.fast import use_fast
from seenet.model.fast.concat_free import ConcatFreeSeENet

SMALL: dict[str, Any] = {"backbone": "resnet10t", "num_classes": 5, "width": 8, "p_out": 16}
WHOLE = ("pfp-seem", "pfp-seem-fs", "pfp-mixed", "pfp-mixed-bf", "seenet")


def results(model: Any, images: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    scores = model(images)
    (scores * torch.linspace(-1, 1, scores.numel(), dtype=scores.dtype).view_as(scores)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {"scores": scores.detach(), **gradients, **{f"buffer {name}": buffer.clone() for name, buffer in model.named_buffers()}}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("variant", "options"),
    [(variant, {}) for variant in WHOLE]
    + [
        ("seenet", {"refine_stride": 8}),
        ("seenet", {"output_stride": 16, "local_conv": "depthwise"}),
        ("pfp-mixed-bf", {"output_stride": 32}),
    ],
)
def test_scores_gradients_and_statistics(variant: str, options: dict[str, Any], training: bool) -> None:
    torch.manual_seed(0)
    plain = create_model(variant, **SMALL, **options).double().train(training)
    fast = copy.deepcopy(plain)
    use_fast(fast)
    assert type(fast) is ConcatFreeSeENet
    images = torch.randn(2, 3, 50, 67, dtype=torch.float64)
    expected, found = results(plain, images), results(fast, images)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-9 * max(1.0, float(value.abs().max())), msg=name)


@pytest.mark.parametrize("variant", ["baseline", "pfp", "seem-fs"])
def test_other_rows_are_left(variant: str) -> None:
    model = create_model(variant, **SMALL)
    before = type(model)
    use_fast(model)
    assert type(model) is before


def test_the_named_tensors_are_there_all_the_same() -> None:
    torch.manual_seed(0)
    model = create_model(**SMALL).eval()
    images = torch.randn(1, 3, 40, 33)
    expected = model.forward_features(images)
    use_fast(model)
    found = model.forward_features(images)
    assert expected.keys() == found.keys()
    torch.testing.assert_close(found["logits"], model(images), rtol=1e-4, atol=1e-5)
