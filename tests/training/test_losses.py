"""The loss against a slow float64 loop; splitting a step changes nothing; void images give 0."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.core.errors import UsageError
from seenet.core.settings import LossSettings
from seenet.model.seenet import ConvUnit
from seenet.training.losses import CrossEntropy, LossModel, class_weights

IGNORE = 9


class Convolution(nn.Module):
    """Network of one convolution, with the interface of the auxiliary head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor, *, own_grid: bool = False) -> Tensor:
        logits: Tensor = self.conv(images)
        return logits

    def forward_features(self, images: Tensor, *, own_grid: bool = False) -> dict[str, Tensor]:
        logits = self(images, own_grid=own_grid)
        return {"logits": logits, "auxiliary": logits * 2}

    def resize(self, logits: Tensor, images: Tensor) -> Tensor:
        return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


def loss_of(model: nn.Module, settings: LossSettings) -> LossModel:
    loss = CrossEntropy(settings, class_weights(settings, None, 4), IGNORE)
    return LossModel(model, loss, settings.auxiliary)  # type: ignore[arg-type]


def batch(count: int = 4) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    masks = torch.randint(0, 4, (count, 5, 6))
    masks[torch.rand(masks.shape) < 0.3] = IGNORE
    return torch.randn(count, 3, 5, 6), masks


def gradient(module: nn.Module) -> Tensor:
    parts = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return torch.cat(parts)


def slow(
    logits: Tensor, masks: Tensor, weights: list[float], ohem: float | None, keep: float
) -> float:
    """Sum the losses pixel by pixel, as the definition says."""
    total = 0.0
    for scores, mask in zip(logits.double(), masks, strict=True):
        pixels = []
        for y, x in torch.cartesian_prod(*map(torch.arange, mask.shape)).tolist():
            k, values = int(mask[y, x]), scores[:, y, x].tolist()
            if k != IGNORE:
                loss = math.log(sum(math.exp(value) for value in values)) - values[k]
                pixels.append((loss, weights[k]))
        kept = sorted(pixels, reverse=True)
        if ohem is not None:
            hard = sum(loss >= -math.log(ohem) for loss, _ in kept)
            kept = kept[: max(hard, 1, math.ceil(keep * len(pixels)))]
        scale = sum(weight for _, weight in pixels) / sum(weight for _, weight in kept)
        total += scale * sum(loss * weight for loss, weight in kept)
    return total


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 0.25]])
@pytest.mark.parametrize(("ohem", "keep"), [(None, 0.1), (0.3, 0.1), (0.05, 0.5)])
@pytest.mark.parametrize("auxiliary", [0, 0.4])
def test_the_loss_equals_the_slow_loop(
    weights: list[float] | None, ohem: float | None, keep: float, auxiliary: float
) -> None:
    settings = LossSettings(class_weights=weights, ohem=ohem, ohem_keep=keep, auxiliary=auxiliary)
    model, (images, masks) = Convolution(), batch()
    loss, values = loss_of(model, settings), weights or [1.0] * 4
    weight = sum(values[k] for k in masks.flatten().tolist() if k != IGNORE)
    assert loss.loss.weight(masks).item() == pytest.approx(weight)
    logits = model(images).detach()
    expected = slow(logits, masks, values, ohem, keep)
    expected += auxiliary * slow(logits * 2, masks, values, ohem, keep)
    assert loss(images, masks).item() == pytest.approx(expected, rel=1e-5)


def test_micro_batches_add_up_to_the_step() -> None:
    images, masks = batch(6)
    masks[:2] = IGNORE  # unequal shares of valid pixels, some of them empty
    gradients = []
    for parts in (1, 2, 3, 6):
        loss = loss_of(Convolution(), LossSettings())
        weight = sum(loss.loss.weight(part) for part in masks.chunk(parts))
        for part in zip(images.chunk(parts), masks.chunk(parts), strict=True):
            (loss(*part) / weight).backward()
        gradients.append(gradient(loss))
        torch.testing.assert_close(gradients[-1], gradients[0])


@pytest.mark.parametrize("ohem", [None, 0.7])
def test_labels_that_are_all_ignored_give_zero(ohem: float | None) -> None:
    images, masks = batch(2)
    loss = loss_of(Convolution(), LossSettings(ohem=ohem))
    total = loss(images, torch.full_like(masks, IGNORE))
    total.backward()
    assert total.item() == 0
    assert torch.isfinite(gradient(loss)).all()


@pytest.mark.parametrize("pixels", [1, 20])
@pytest.mark.parametrize("ohem", [None, 0.7])
def test_logits_that_are_nan_make_the_loss_nan(ohem: float | None, pixels: int) -> None:
    """Whether or not they rank as the hardest: such a loss stops the run."""
    images, masks = batch(1)
    images[0].flatten(1)[:, :pixels] = float("nan")
    loss = loss_of(Convolution(), LossSettings(ohem=ohem, ohem_keep=0.2))
    assert math.isnan(loss(images, masks.clamp(max=3)).item())


def test_class_weights() -> None:
    settings = LossSettings(class_weights="median_frequency", weight_power=0.5)
    torch.testing.assert_close(class_weights(settings, [4.0, 1.0], 2), torch.tensor([2.0, 1.0]))
    assert class_weights(LossSettings(), None, 2) is None
    with pytest.raises(UsageError, match="2 weights, expected one for each of 3"):
        class_weights(LossSettings(class_weights=[1, 2]), None, 3)


def test_the_compiled_loss_is_the_same() -> None:
    images, masks = batch()
    model = Convolution()
    model.conv = nn.Sequential(ConvUnit(3, 6), nn.Conv2d(6, 4, 1))  # type: ignore[assignment]
    loss = loss_of(model, LossSettings())
    gradients = []
    for call in (loss, torch.compile(loss, backend="aot_eager")):
        loss.zero_grad()
        call(images, masks).backward()
        gradients.append(gradient(loss))
    torch.testing.assert_close(*gradients)
