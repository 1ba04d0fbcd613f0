"""The receptive field against the support of the gradient."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from seenet.model import Segmenter, create_model
from seenet.model.receptive_field import receptive_field

TINY: dict[str, Any] = {"backbone": "resnet10t", "num_classes": 2, "width": 4, "p_out": 8}


def averaging(variant: str, **options: Any) -> Segmenter:
    """Build a network in float64 whose gradients do not cancel or stop at an activation."""
    torch.manual_seed(0)
    model = create_model(variant, **TINY | options).double().eval()
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.uniform_(module.weight, 0, 1 / module.weight[0].numel())
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm starts the last one of a residual branch at 0
        for name, pool in module.named_children():
            if isinstance(pool, nn.MaxPool2d):
                # The gradient of a maximum would show one point of its window.
                mean = nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
                setattr(module, name, mean)
    return model


def radius_of_gradient(model: Segmenter, radius: int, axis: int) -> int:
    """Return pixels to the farthest gradient of neighbouring scores, along one axis."""
    side = 2 * radius + 128 - 2 * radius % 32
    shape = (1, 3, side, 8) if axis == 2 else (1, 3, 8, side)
    image = torch.full(shape, 0.1, dtype=torch.float64, requires_grad=True)
    scores, farthest = model(image), 0
    for here in range(side // 2, side // 2 + model.options["output_stride"]):
        score = scores[0, 0].select(axis - 2, here).sum()
        (gradient,) = torch.autograd.grad(score, image, retain_graph=True)
        seen = gradient.abs().sum((0, 1, 5 - axis)).nonzero().flatten()
        farthest = max(farthest, here - int(seen.min()), int(seen.max()) - here)
    return farthest


@pytest.mark.parametrize(
    ("variant", "options", "axis"),
    [
        ("baseline", {}, 2),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("pfp", {"output_stride": 16}, 3),
                ("torchvision-fcn", {"output_stride": 32}, 2),
                ("seenet", {}, 3),
                ("seenet", {"output_stride": 32, "refine_stride": 8}, 2),
                ("pfp-mixed-bf", {"rates": "fixed", "output_stride": 16}, 2),
                ("seem-fs", {"backbone": "tf_efficientnet_lite0", "output_stride": 16}, 3),
                ("pfp-seem", {"backbone": "convnext_atto"}, 3),
            )
        ),
    ],
)
def test_radius_is_where_the_gradient_ends(
    variant: str, options: dict[str, object], axis: int
) -> None:
    model = averaging(variant, **options)
    radius = receptive_field(model).radius
    assert radius_of_gradient(model, int(radius), axis) == radius


def test_the_first_side_does_not_matter() -> None:
    model = create_model("pfp", **TINY)
    assert receptive_field(model, 64) == receptive_field(model, 2048)


def test_convnext_is_followed() -> None:
    """Layer norm over channels and linear maps on points, on permuted tensors."""
    model = create_model("baseline", **TINY | {"backbone": "convnext_tiny"})
    assert receptive_field(model).radius < math.inf


@pytest.mark.parametrize(
    ("variant", "backbone", "operation"),
    [
        ("seenet", "mobilenetv3_small_050", "mean"),  # squeeze-excite
        ("torchvision-deeplabv3", "resnet10t", "mean"),  # image pooling
        ("smp-pspnet", "resnet10t", "mean"),
        ("smp-fpn", "resnet10t", "native_group_norm"),
    ],
)
def test_global_operations_are_named(variant: str, backbone: str, operation: str) -> None:
    field = receptive_field(create_model(variant, **TINY | {"backbone": backbone}))
    assert field.radius == math.inf
    assert str(field) == f"infinite: {operation} takes in the whole picture"


def test_unknown_operations_are_named() -> None:
    model = create_model("baseline", **TINY)
    model.head = nn.Sequential(model.head, nn.ReflectionPad2d(1))
    field = receptive_field(model)
    assert field.radius == math.inf and "reflection_pad2d" in field.reason
