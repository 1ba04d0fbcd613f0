"""A loss of the user's own: the sum over valid pixels, whatever is ignored or drawn."""

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
from seenet.training.losses import CrossEntropy, LossModel, OwnLoss
from tests.training.test_losses import IGNORE, Convolution, batch, gradient

made: list[Any] = []
plain = partial(F.cross_entropy, ignore_index=IGNORE, reduction="none")


def make(num_classes: int, ignore: int) -> Any:
    assert (num_classes, ignore) == (4, IGNORE)
    return made[-1]


def own(function: Any, weights: Tensor | None = None) -> OwnLoss:
    """Return the loss for which `make` gives this function."""
    made.append(function)
    return OwnLoss(LossSettings(function=f"{__name__}:make"), weights, IGNORE, 4)


def squared(scores: Tensor, labels: Tensor) -> Tensor:
    """Look at ignored pixels too: they must not count."""
    targets = F.one_hot(labels.clamp(max=3), 4).permute(0, 3, 1, 2)
    return ((scores.softmax(1) - targets) ** 2).sum(1)


def dropping(scores: Tensor, labels: Tensor) -> Tensor:
    """Draw random numbers, the same going forward and back."""
    return plain(scores, labels) * (torch.rand(labels.shape) < 0.5)


class WithFactor(nn.Module):
    """Has a tensor of its own, which moves with it."""

    def __init__(self, *, frozen: bool) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0), requires_grad=not frozen)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        return self.factor * plain(scores, labels)


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 0.25]])
@pytest.mark.parametrize("auxiliary", [0, 0.4])
def test_cross_entropy_of_ones_own_is_ours(weights: list[float] | None, auxiliary: float) -> None:
    given = None if weights is None else torch.tensor(weights)
    images, masks = batch()
    found = []
    for loss in (CrossEntropy(LossSettings(), given, IGNORE), own(plain, given)):
        module = LossModel(Convolution(), loss, auxiliary)  # type: ignore[arg-type]
        value = module(images, masks)
        value.backward()
        found.append((value.detach(), loss.weight(masks), gradient(module)))
    torch.testing.assert_close(found[1], found[0])


def test_ignored_pixels_do_not_count_whatever_the_loss_says_of_them() -> None:
    _, masks = batch(2)
    logits = torch.randn(2, 4, *masks.shape[1:], requires_grad=True)
    loss = own(squared)(logits, masks)
    loss.backward()
    expected = squared(logits.double(), masks)[masks != IGNORE].sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logits.grad is not None
    assert (logits.grad.abs().sum(1) > 0).equal(masks != IGNORE)
    assert own(squared)(logits, torch.full_like(masks, IGNORE)).item() == 0


def test_random_numbers_are_the_same_going_back() -> None:
    images, masks = batch(1)
    gradients = []
    for recomputed in (True, False):
        model, loss = Convolution(), own(dropping)
        torch.manual_seed(3)
        if recomputed:
            LossModel(model, loss)(images, masks).backward()  # type: ignore[arg-type]
        else:
            loss(model(images), masks).backward()
        gradients.append(gradient(model))
    torch.testing.assert_close(*gradients)


def test_what_is_no_number_is_not_left_out() -> None:
    images, masks = batch(1)
    images[0, :, 0, 0] = float("nan")
    found = LossModel(Convolution(), own(plain))(images, masks.clamp(max=3))  # type: ignore[arg-type]
    assert math.isnan(found.item())


def test_it_computes_in_float32_under_autocast() -> None:
    _, masks = batch(1)

    def looking(scores: Tensor, labels: Tensor) -> Tensor:
        flat = scores[0].flatten(1)
        assert scores.dtype == (flat @ flat.T).dtype == torch.float32
        return scores.sum(1)

    with torch.autocast("cpu", torch.bfloat16):
        own(looking)(torch.randn(1, 4, *masks.shape[1:]).bfloat16(), masks)


def test_trying_a_loss_draws_no_random_numbers() -> None:
    state = torch.get_rng_state()
    for function in (plain, squared, dropping, WithFactor(frozen=True)):
        own(function).try_out(torch.device("cpu"))
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (WithFactor(frozen=False), r"has parameters \(factor\), which nothing trains"),
        (4, "gave a int, expected a function"),
        (
            partial(F.cross_entropy, ignore_index=IGNORE),
            r'gave \(\) for labels \(1, 33, 47\), expected .*reduction="none"',
        ),
        (lambda scores, labels: 1.0, "gave float for labels"),
        (lambda scores, labels: (scores.argmax(1) != labels).float(), "does not depend on the"),
        (lambda scores, labels: scores.no_such_thing, "failed with AttributeError: .*no_such"),
    ],
)
def test_wrong_losses_are_one_line_at_the_door(function: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        own(function).try_out(torch.device("cpu"))
    assert str(caught.value).startswith(f"loss.function={__name__}:make: ")
    assert "\n" not in str(caught.value)


def test_hard_examples_are_for_cross_entropy() -> None:
    with pytest.raises(UsageError, match=r"loss: ohem ranks pixels by cross entropy"):
        load_recipe("shapes", ["loss.function=mine:make", "loss.ohem=0.7"])
