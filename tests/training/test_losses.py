"""The loss against a slow float64 loop; splitting a step changes nothing; nothing valid gives 0."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.core.errors import UsageError
from seenet.core.settings import LossSettings
from seenet.model.seenet import ConvUnit
from seenet.training.losses import LossModel, class_weights

IGNORE = 9


class Scores(nn.Module):
    """A network of one convolution, with the auxiliary head's interface."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor, *, own_grid: bool = False) -> Tensor:
        assert own_grid
        scores: Tensor = self.conv(images)
        return scores

    def forward_features(self, images: Tensor, *, own_grid: bool = False) -> dict[str, Tensor]:
        scores = self(images, own_grid=own_grid)
        return {"logits": scores, "auxiliary": scores * 2}

    def resize(self, scores: Tensor, images: Tensor) -> Tensor:
        return F.interpolate(scores, images.shape[-2:], mode="bilinear", align_corners=False)


def batch(count: int = 4) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    masks = torch.randint(0, 4, (count, 5, 6))
    masks[torch.rand(masks.shape) < 0.3] = IGNORE
    return torch.randn(count, 3, 5, 6), masks


def slow(logits: Tensor, masks: Tensor, weights: list[float], ohem: float | None, keep: float) -> float:
    """Sum of losses as the definition says it, pixel by pixel."""
    total = 0.0
    for scores, mask in zip(logits.double(), masks, strict=True):
        pixels = []
        for y in range(mask.shape[0]):
            for x in range(mask.shape[1]):
                k = int(mask[y, x])
                if k != IGNORE:
                    values = scores[:, y, x].tolist()
                    pixels.append((math.log(sum(math.exp(v) for v in values)) - values[k], weights[k]))
        kept = pixels
        if ohem is not None and pixels:
            hard = sorted(pixels, reverse=True)
            kept = [p for p in hard if p[0] >= -math.log(ohem)]
            kept = hard[: max(len(kept), 1, math.ceil(keep * len(pixels)))]
        scale = sum(w for _, w in pixels) / sum(w for _, w in kept) if kept else 0
        total += scale * sum(loss * w for loss, w in kept)
    return total


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 0.25]])
@pytest.mark.parametrize(("ohem", "keep"), [(None, 0.1), (0.3, 0.1), (0.05, 0.5)])
@pytest.mark.parametrize("auxiliary", [0, 0.4])
def test_against_the_slow_loop(weights: list[float] | None, ohem: float | None, keep: float, auxiliary: float) -> None:
    settings = LossSettings(class_weights=weights, ohem=ohem, ohem_keep=keep, auxiliary=auxiliary)
    model = Scores()
    loss = LossModel(model, settings, class_weights(settings, None, 4), IGNORE)  # type: ignore[arg-type]
    images, masks = batch()
    divisor = loss.divisor_of(masks)
    values = weights or [1.0] * 4
    assert divisor.item() == pytest.approx(sum(values[k] for k in masks.flatten().tolist() if k != IGNORE))
    logits = model(images, own_grid=True).detach()
    expected = slow(logits, masks, values, ohem, keep) + (auxiliary * slow(logits * 2, masks, values, ohem, keep) if auxiliary else 0)
    assert loss(images, masks, divisor.float()).item() == pytest.approx(expected / divisor.item(), rel=1e-5)


def test_micro_batches_add_up_to_the_step() -> None:
    images, masks = batch(6)
    masks[:2] = IGNORE  # unequal shares of valid pixels, some none at all
    gradients = []
    for parts in (1, 2, 3, 6):
        torch.manual_seed(1)
        model = Scores()
        loss = LossModel(model, LossSettings(), None, IGNORE)  # type: ignore[arg-type]
        divisor = loss.divisor_of(masks)
        for some_images, some_masks in zip(images.chunk(parts), masks.chunk(parts), strict=True):
            loss(some_images, some_masks, divisor.float()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


@pytest.mark.parametrize("ohem", [None, 0.7])
def test_ignored_labels_alone_give_zero(ohem: float | None) -> None:
    images, masks = batch(2)
    masks[:] = IGNORE
    model = Scores()
    loss = LossModel(model, LossSettings(ohem=ohem), None, IGNORE)(images, masks, torch.ones(()))  # type: ignore[arg-type]
    loss.backward()
    assert loss.item() == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("pixels", [1, 20])
@pytest.mark.parametrize("ohem", [None, 0.7])
def test_scores_that_are_no_numbers_are_not_left_out(ohem: float | None, pixels: int) -> None:
    """Ranked as the hardest or not: the loss must say so, since it is what stops the run."""
    images, masks = batch(1)
    masks[masks == IGNORE] = 0
    images[0].flatten(1)[:, :pixels] = float("nan")
    settings = LossSettings(ohem=ohem, ohem_keep=0.2)
    assert math.isnan(LossModel(Scores(), settings, None, IGNORE)(images, masks, torch.ones(())).item())  # type: ignore[arg-type]


def test_class_weights() -> None:
    settings = LossSettings(class_weights="median_frequency", weight_power=0.5)
    torch.testing.assert_close(class_weights(settings, [4.0, 1.0], 2), torch.tensor([2.0, 1.0]))
    assert class_weights(LossSettings(), None, 2) is None
    with pytest.raises(UsageError, match="found 2 weights, expected one for each of 3"):
        class_weights(LossSettings(class_weights=[1, 2]), None, 3)


def test_compiled_is_the_same() -> None:
    images, masks = batch()
    torch.manual_seed(1)
    model = Scores()
    model.conv = nn.Sequential(ConvUnit(3, 6), nn.Conv2d(6, 4, 1))  # type: ignore[assignment]
    loss = LossModel(model, LossSettings(), None, IGNORE)  # type: ignore[arg-type]
    gradients = []
    for compiled in (False, True):
        loss.zero_grad()
        run = torch.compile(loss, backend="aot_eager") if compiled else loss
        run(images, masks, torch.ones(())).backward()
        gradients.append([parameter.grad for parameter in loss.parameters()])
    for eager, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, eager)
