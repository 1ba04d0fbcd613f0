"""Costs against counting by hand, and the warning about taps that a crop never feeds."""

import pytest
import torch

from seenet.model import VARIANTS, create_model
from seenet.model.summary import dead_taps, summarize

SMALL = {"backbone": "resnet10t", "num_classes": 5, "width": 8, "p_out": 16}


def test_parts_hold_all_parameters_once() -> None:
    for variant in VARIANTS:
        model = create_model(variant, **SMALL, auxiliary=True)
        parts = summarize(model, 64, 48)
        assert sum(part.parameters for part in parts) == sum(parameter.numel() for parameter in model.parameters())
        assert [part.name for part in parts][-2:] == ["auxiliary", "logits"]


@pytest.mark.parametrize("backbone", ["resnet10t", "tf_efficientnet_lite0", "convnext_atto"])
def test_stages_hold_the_backbone(backbone: str) -> None:
    model = create_model(backbone=backbone, num_classes=5, width=8, p_out=16, output_stride=16)
    stages = summarize(model, 64, 64)[:4]
    assert [part.name for part in stages] == ["B1", "B2", "B3", "B4"]
    assert sum(part.parameters for part in stages) == sum(parameter.numel() for parameter in model.backbone.parameters())


def test_stages_that_are_mixed_are_counted_with_the_last() -> None:
    with torch.device("meta"):
        model = create_model(backbone="hrnet_w18_small", num_classes=5, width=8, p_out=16, output_stride=32)
        stages = summarize(model, 64, 64)[:4]
    assert [part.parameters for part in stages] == [0, 0, 0, sum(parameter.numel() for parameter in model.backbone.parameters())]


def test_flops_of_the_pyramid_by_hand() -> None:
    model = create_model(**SMALL)
    part = next(part for part in summarize(model, 64, 64) if part.name == "P2")
    channels = model.backbone.channels[1]
    points = 8 * 8
    assert part.flops == 2 * points * 4 * (channels * 8 + 9 * 8 + 8 * 8)
    assert part.shape == (channels + 32, 8, 8)


def test_summary_leaves_the_model_alone() -> None:
    model = create_model(**SMALL).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    summarize(model, 32, 32)
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_dead_taps_named() -> None:
    fixed = create_model(**SMALL, output_stride=16, rates="fixed")
    assert dead_taps(fixed, (256, 256)) == ["P4: rates 19, 25 on a 16x16 grid never see data off their centre"]
    assert dead_taps(create_model(**SMALL, output_stride=16), (256, 256)) == []
    assert dead_taps(create_model("baseline", **SMALL), (160, 320)) == ["ASPP: rates 24 on a 20x40 grid never see data off their centre"]
