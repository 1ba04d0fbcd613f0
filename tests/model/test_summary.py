"""Costs against counting by hand, and rates that a crop never feeds."""

from typing import Any

import pytest
import torch

from seenet.model import Segmenter
from seenet.model.summary import Part, dead_taps, summarize
from tests.model.networks import small


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("variant", "options", "above"),
    [
        ("baseline", {}, "B3 B4 logits"),
        ("pfp", {}, "B3 B4 P2 P3 logits"),
        ("seem-fs", {}, "B3 B4 P4 P_out logits"),
        ("seenet", {"auxiliary": True}, "B3 B4 P2 P3 P4 P_out auxiliary logits"),
        ("seenet", {"probe": "B3+EB2"}, "B3 P2 logits"),
        ("torchvision-deeplabv3", {}, "B3 B4 logits"),
        ("smp-fpn", {"auxiliary": True}, "B3 B4 auxiliary logits"),
    ],
)
def test_parts_hold_all_parameters_once(variant: str, options: dict[str, Any], above: str) -> None:
    model = small(variant, **options)
    parts = summarize(model, 64, 48)
    assert [part.name for part in parts] == ["B1", "B2", *above.split()]
    assert sum(part.parameters for part in parts) == parameters(model)
    assert all(part.flops > 0 for part in parts)


def stages(backbone: str, output_stride: int) -> tuple[Segmenter, list[Part]]:
    with torch.device("meta"):
        model = small(backbone=backbone, output_stride=output_stride)
        return model, summarize(model, 64, 64)[:4]


@pytest.mark.parametrize("backbone", ["resnet10t", "tf_efficientnet_lite0", "convnext_atto"])
def test_stages_hold_the_backbone(backbone: str) -> None:
    model, parts = stages(backbone, 16)
    assert [part.name for part in parts] == ["B1", "B2", "B3", "B4"]
    assert sum(part.parameters for part in parts) == parameters(model.backbone)
    assert all(part.parameters for part in parts)


def test_interleaved_stages_count_for_the_last() -> None:
    model, parts = stages("hrnet_w18_small", 32)
    assert [part.parameters for part in parts] == [0, 0, 0, parameters(model.backbone)]


def test_flops_of_the_pyramid_by_hand() -> None:
    model = small()
    part = next(part for part in summarize(model, 64, 64) if part.name == "P2")
    channels, points = model.backbone.channels[1], 8 * 8
    assert part.flops == 2 * points * 4 * (channels * 8 + 9 * 8 + 8 * 8)
    assert part.shape == (channels + 32, 8, 8)


@pytest.mark.parametrize(
    ("variant", "options", "crop", "warnings"),
    [
        ("seenet", {"rates": "fixed"}, (256, 256), ["P4: rates 19, 25 on a 16x16 grid"]),
        ("seenet", {}, (256, 256), []),
        ("baseline", {"output_stride": 8}, (160, 320), ["ASPP: rates 24 on a 20x40 grid"]),
        (
            "torchvision-deeplabv3",
            {"output_stride": 8},
            (256, 256),
            ["ASPP: rates 36 on a 32x32 grid"],
        ),
        ("pfp", {"probe": "B3+EB2"}, (64, 64), []),
        ("seenet", {"probe": "B3+EB2"}, (64, 64), ["P2: rates 8 on a 8x8 grid"]),
    ],
)
def test_dead_taps_are_named(
    variant: str, options: dict[str, Any], crop: tuple[int, int], warnings: list[str]
) -> None:
    model = small(variant, **{"output_stride": 16} | options)
    found = [line.split(" never see data")[0] for line in dead_taps(model, crop)]
    assert found == warnings
