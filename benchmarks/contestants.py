"""The networks that are compared, on one backbone at one output stride, with random weights.

SeENet runs as the project's trainer, predictor and exporter run it; DeepLabv3 and DeepLabv3+ as
their users run them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seenet.core.labels import LabelSet
from seenet.model import Segmenter, create_model
from seenet.model.fast.prediction import prediction_form

CONTESTANTS = {
    "seenet": "seenet",
    "deeplabv3": "torchvision-deeplabv3",
    "deeplabv3plus": "smp-deeplabv3plus",
}
"""Variants of `create_model`; DeepLabv3 and DeepLabv3+ have rates 12, 24, 36 at output stride 8."""
BACKBONES = {"resnet50": 8, "resnet18": 8, "tf_efficientnet_lite0": 16}
"""Output strides."""
LIGHT: dict[str, Any] = {"width": 96, "local_conv": "depthwise", "p_out": 80}
"""SeENet's options on light backbones: as fast as DeepLabv3+ there."""
CLASSES = 21
LABELS = LabelSet(
    "bench",
    tuple(f"class {index}" for index in range(CLASSES)),
    tuple((index, 0, 0) for index in range(CLASSES)),
)


def options(backbone: str) -> dict[str, Any]:
    """Return SeENet's options on this backbone."""
    return LIGHT if backbone == "tf_efficientnet_lite0" else {}


def network(name: str, backbone: str, *, classes: int = CLASSES) -> Segmenter:
    """Build a contestant in eval mode, plain, in channels-last memory as in the trainer."""
    torch.manual_seed(0)
    own = options(backbone) if name == "seenet" else {}
    model = create_model(
        CONTESTANTS[name],
        backbone=backbone,
        num_classes=classes,
        output_stride=BACKBONES[backbone],
        **own,
    )
    return model.eval().to(memory_format=torch.channels_last)


def ready(name: str, model: Segmenter, *, compiled: bool = False) -> Callable[..., Tensor]:
    """Return what prediction calls: for SeENet the predictor's form, for the others the module."""
    called: Callable[..., Tensor] = model
    if name == "seenet":
        called = prediction_form(model, "compiled" if compiled else "fused")
    return torch.compile(called) if compiled else called


def plain_step(
    model: Segmenter, images: Tensor, masks: Tensor, *, bf16: bool
) -> Callable[[], object]:
    """Return a training step as in torchvision's scripts: mean cross entropy, SGD with momentum."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)
    model.train()

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(images), masks, ignore_index=255)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step
