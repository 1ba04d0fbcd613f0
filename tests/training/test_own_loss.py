"""A loss of the user's own: the sum over valid pixels, whatever is ignored, drawn or split."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.core.errors import UsageError
from seenet.core.recipe_files import load_recipe
from seenet.core.settings import LossSettings
from seenet.training.losses import CrossEntropy, LossModel
from seenet.training.own_loss import OwnLoss
from tests.training.test_losses import IGNORE, Convolution, batch

CPU = torch.device("cpu")


def plain(num_classes: int, ignore: int) -> Any:
    return partial(F.cross_entropy, ignore_index=ignore, reduction="none")


def distance(num_classes: int, ignore: int) -> Any:
    """Look at ignored pixels too: they must not count."""

    def squared(scores: Tensor, labels: Tensor) -> Tensor:
        targets = F.one_hot(labels.clamp(max=num_classes - 1), num_classes).permute(0, 3, 1, 2)
        return ((scores.softmax(1) - targets) ** 2).sum(1)

    return squared


def dropping(num_classes: int, ignore: int) -> Any:
    """Draw random numbers, the same going forward and back."""

    def kept(scores: Tensor, labels: Tensor) -> Tensor:
        losses = F.cross_entropy(scores, labels, ignore_index=ignore, reduction="none")
        return losses * (torch.rand(labels.shape) < 0.5)

    return kept


class Frozen(nn.Module):
    """Has tensors of its own, which move with it and are not trained."""

    def __init__(self, *, frozen: bool) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0), requires_grad=not frozen)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        return self.factor * F.cross_entropy(scores, labels, ignore_index=IGNORE, reduction="none")


def frozen(num_classes: int, ignore: int) -> nn.Module:
    return Frozen(frozen=True)


def trained(num_classes: int, ignore: int) -> nn.Module:
    return Frozen(frozen=False)


def mean(num_classes: int, ignore: int) -> Any:
    return partial(F.cross_entropy, ignore_index=ignore)


def number(num_classes: int, ignore: int) -> Any:
    return lambda scores, labels: 1.0


def detached(num_classes: int, ignore: int) -> Any:
    return lambda scores, labels: (scores.argmax(1) != labels).float()


def failing(num_classes: int, ignore: int) -> Any:
    return lambda scores, labels: scores.no_such_thing


def no_function(num_classes: int, ignore: int) -> Any:
    return num_classes


def own(function: Any, weights: Tensor | None = None) -> OwnLoss:
    settings = LossSettings(function=f"{__name__}:{function.__name__}")
    return OwnLoss(settings, weights, IGNORE, 4)


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 0.25]])
@pytest.mark.parametrize("auxiliary", [0, 0.4])
def test_cross_entropy_of_ones_own_is_ours(weights: list[float] | None, auxiliary: float) -> None:
    given = None if weights is None else torch.tensor(weights)
    images, masks = batch()
    torch.manual_seed(1)
    model = Convolution()
    found = []
    for loss in (CrossEntropy(LossSettings(), given, IGNORE), own(plain, given)):
        module = LossModel(model, loss, auxiliary)  # type: ignore[arg-type]
        model.zero_grad()
        value = module(images, masks)
        value.backward()
        gradients = [
            parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
        ]
        found.append((value.detach(), loss.weight(masks), *gradients))
    torch.testing.assert_close(found[1], found[0])


def test_ignored_pixels_do_not_count_whatever_the_loss_says_of_them() -> None:
    _, masks = batch(2)
    logits = torch.randn(2, 4, *masks.shape[1:], requires_grad=True)
    loss = own(distance)(logits, masks)
    loss.backward()
    expected = sum(
        sum(
            (p - (k == int(mask[y, x]))) ** 2
            for k, p in enumerate(scores[:, y, x].softmax(0).tolist())
        )
        for scores, mask in zip(logits.detach().double(), masks, strict=True)
        for y in range(mask.shape[0])
        for x in range(mask.shape[1])
        if int(mask[y, x]) != IGNORE
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logits.grad is not None
    assert (logits.grad.abs().sum(1) > 0).equal(masks != IGNORE)
    assert own(distance)(logits, torch.full_like(masks, IGNORE)).item() == 0


def test_micro_batches_add_up_to_the_step() -> None:
    images, masks = batch(6)
    masks[:2] = IGNORE
    gradients = []
    for parts in (1, 2, 6):
        torch.manual_seed(1)
        model = Convolution()
        loss = LossModel(model, own(distance))  # type: ignore[arg-type]
        weight = sum(loss.loss.weight(some) for some in masks.chunk(parts))
        for some_images, some_masks in zip(images.chunk(parts), masks.chunk(parts), strict=True):
            (loss(some_images, some_masks) / weight).backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


def test_random_numbers_are_the_same_going_back() -> None:
    images, masks = batch(1)
    model = Convolution()
    gradients = []
    for module in (LossModel(model, own(dropping)), own(dropping)):  # type: ignore[arg-type]
        model.zero_grad()
        torch.manual_seed(3)
        first = images if isinstance(module, LossModel) else model(images, own_grid=True)
        module(first, masks).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_what_is_no_number_is_not_left_out() -> None:
    images, masks = batch(1)
    masks[masks == IGNORE] = 0
    images[0, :, 0, 0] = float("nan")
    assert math.isnan(LossModel(Convolution(), own(plain))(images, masks).item())  # type: ignore[arg-type]


def test_it_computes_in_float32_under_autocast() -> None:
    _, masks = batch(1)
    seen = []

    def looking(scores: Tensor, labels: Tensor) -> Tensor:
        seen.append((scores.dtype, (scores[0].flatten(1) @ scores[0].flatten(1).T).dtype))
        return scores.sum(1)

    loss = own(plain)
    loss.function = looking
    with torch.autocast("cpu", torch.bfloat16):
        loss(torch.randn(1, 4, *masks.shape[1:]).bfloat16(), masks)
    assert seen == [(torch.float32, torch.float32)]


def test_tried_before_the_first_step() -> None:
    state = torch.get_rng_state()
    for function in (plain, distance, dropping, frozen):
        own(function).try_out(CPU)
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (trained, r"has parameters \(factor\), which nothing trains"),
        (no_function, "gave a int, expected a function"),
        (mean, r'gave \(\) for labels \(1, 33, 47\), expected .*reduction="none"'),
        (number, "gave float for labels"),
        (detached, "does not depend on the scores"),
        (failing, "failed with AttributeError: .*no_such_thing"),
    ],
)
def test_wrong_losses_are_one_line_at_the_door(function: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        own(function).try_out(CPU)
    assert str(caught.value).startswith(f"loss.function={__name__}:{function.__name__}: ")
    assert "\n" not in str(caught.value)


def test_hard_examples_are_for_cross_entropy() -> None:
    with pytest.raises(UsageError, match=r"loss: ohem ranks pixels by cross entropy"):
        load_recipe("shapes", ["loss.function=mine:make", "loss.ohem=0.7"])
