"""The radius against the support of the gradient, and networks that look everywhere."""

import math

import pytest
import torch
from torch import nn

from seenet.core.errors import UsageError
from seenet.model import Segmenter, create_model
from seenet.model.receptive import receptive_field

SMALL = {"num_classes": 2, "width": 4, "p_out": 8}


def averaging(variant: str, backbone: str, **options: object) -> Segmenter:
    """In float64, with small positive weights: no activation is off or saturated, and no gradient cancels."""
    torch.manual_seed(0)
    model = create_model(variant, backbone=backbone, **SMALL, **options).double().eval()
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
    model = create_model("pfp", backbone="resnet10t", **SMALL)
    assert receptive_field(model, 64) == receptive_field(model, 2048)


def test_linear_maps_on_points_are_followed() -> None:
    # ConvNeXt's permuted tensors: layer norm over channels, linear maps on points.
    assert receptive_field(create_model("baseline", backbone="convnext_tiny", **SMALL)).radius < math.inf


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
        model = create_model(variant, backbone=backbone, **SMALL)
    except UsageError:
        pytest.skip("segmentation-models-pytorch is not installed")
    field = receptive_field(model)
    assert field.radius == math.inf
    assert str(field) == f"infinite: {reason} takes in the whole picture"


def test_unknown_operations_are_said_to_be() -> None:
    class Turned(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flip(-1)

    model = create_model("baseline", backbone="resnet10t", **SMALL)
    model.head = nn.Sequential(model.head, Turned())
    assert "flip is taken to look at the whole picture" in str(receptive_field(model))
