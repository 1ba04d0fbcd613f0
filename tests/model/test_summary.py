"""Costs against counting by hand, the radius against the support of the gradient, taps that a crop never feeds."""

import math

import pytest
import torch
from torch import nn

from seenet.core.errors import UsageError
from seenet.model import VARIANTS, Segmenter, create_model
from seenet.model.summary import dead_taps, receptive_field, summarize

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


TINY = {"num_classes": 2, "width": 4, "p_out": 8}


def averaging(variant: str, backbone: str, **options: object) -> Segmenter:
    """In float64, with small positive weights: no activation is off or saturated, and no gradient cancels."""
    torch.manual_seed(0)
    model = create_model(variant, backbone=backbone, **TINY, **options).double().eval()
    with torch.no_grad():
        for module in list(model.modules()):
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(torch.rand_like(module.weight) / module.weight[0].numel())
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1)  # timm starts the last one of a residual branch at 0
            for name, child in module.named_children():
                if isinstance(child, nn.MaxPool2d):
                    # Of its window the gradient would show one point alone.
                    setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
    return model


def reach_of_gradient(model: Segmenter, radius: int, axis: int, period: int) -> int:
    """Pixels to the farthest one that the scores of `period` neighbouring pixels have a gradient at, along one axis."""
    side = 2 * radius + 128 - 2 * radius % 32
    image = torch.full((1, 3, side, 8) if axis == 2 else (1, 3, 8, side), 0.1, dtype=torch.float64, requires_grad=True)
    scores, farthest = model(image), 0
    for here in range(side // 2, side // 2 + period):
        (gradient,) = torch.autograd.grad(scores[0, 0].select(axis - 2, here).sum(), image, retain_graph=True)
        found = gradient.abs().sum((0, 1, 5 - axis)).nonzero().flatten()
        farthest = max(farthest, here - int(found.min()), int(found.max()) - here)
    return farthest


@pytest.mark.parametrize(
    ("variant", "backbone", "options", "axis"),
    [
        ("baseline", "resnet10t", {}, 2),
        pytest.param("pfp", "resnet10t", {"output_stride": 16}, 3, marks=pytest.mark.slow),
        pytest.param("torchvision-fcn", "resnet10t", {"output_stride": 32}, 2, marks=pytest.mark.slow),
        pytest.param("seenet", "resnet10t", {}, 3, marks=pytest.mark.slow),
        pytest.param("seenet", "resnet10t", {"output_stride": 32, "refine_stride": 8}, 2, marks=pytest.mark.slow),
        pytest.param("pfp-mixed-bf", "resnet10t", {"rates": "fixed", "output_stride": 16}, 2, marks=pytest.mark.slow),
        pytest.param("seem-fs", "tf_efficientnet_lite0", {"output_stride": 16}, 3, marks=pytest.mark.slow),
        pytest.param("pfp-seem", "convnext_atto", {}, 3, marks=pytest.mark.slow),
    ],
)
def test_radius_is_where_the_gradient_ends(variant: str, backbone: str, options: dict[str, object], axis: int) -> None:
    model = averaging(variant, backbone, **options)
    field = receptive_field(model)
    assert reach_of_gradient(model, int(field.radius), axis, model.options["output_stride"]) == field.radius


def test_start_side_does_not_matter() -> None:
    model = create_model("pfp", backbone="resnet10t", **TINY)
    assert receptive_field(model, 64) == receptive_field(model, 2048)


def test_linear_maps_on_points_are_followed() -> None:
    # ConvNeXt's permuted tensors: layer norm over channels, linear maps on points.
    assert receptive_field(create_model("baseline", backbone="convnext_tiny", **TINY)).radius < math.inf


@pytest.mark.parametrize(
    ("variant", "backbone", "reason"),
    [
        ("seenet", "mobilenetv3_small_050", "mean"),  # squeeze-excite
        ("torchvision-deeplabv3", "resnet10t", "mean"),  # image pooling
        ("smp-pspnet", "resnet10t", "mean"),
        ("smp-fpn", "resnet10t", "native_group_norm"),
    ],
)
def test_what_takes_in_the_whole_picture_is_named(variant: str, backbone: str, reason: str) -> None:
    try:
        model = create_model(variant, backbone=backbone, **TINY)
    except UsageError:
        pytest.skip("segmentation-models-pytorch is not installed")
    field = receptive_field(model)
    assert field.radius == math.inf
    assert str(field) == f"infinite: {reason} takes in the whole picture"


def test_unknown_operations_are_said_to_be() -> None:
    class Turned(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flip(-1)

    model = create_model("baseline", backbone="resnet10t", **TINY)
    model.head = nn.Sequential(model.head, Turned())
    assert "flip is taken to look at the whole picture" in str(receptive_field(model))
