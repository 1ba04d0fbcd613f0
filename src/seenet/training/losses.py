"""Cross entropy, a loss of the user's own, and the module of network and loss.

A loss sees one batch of logits and labels. It returns the *sum* of its terms, and computes from the
labels alone the *weight* by which the sum is divided for a mean. `training.trainer` adds the
weights of all micro-batches and processes and divides by their total: a crop without valid pixels
adds 0, and splitting a step changes nothing.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seenet.core.errors import UsageError
from seenet.core.files import load_callable, own_code
from seenet.core.settings import LossSettings
from seenet.model import Segmenter

TRIED = (33, 47)
"""Height and width of the scores on which it is tried before the first step."""


class CrossEntropy(nn.Module):
    """Cross entropy over valid pixels; with `loss.ohem` over the hard pixels only."""

    may_draw = False
    """Whether it draws random numbers, which must be the same when it is computed again."""

    def __init__(self, settings: LossSettings, weights: Tensor | None, ignore: int) -> None:
        super().__init__()
        self.settings, self.ignore = settings, ignore
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)

    def weight(self, masks: Tensor) -> Tensor:
        """Count the valid pixels of N x H x W labels, or sum their class weights, in float64."""
        valid = masks[masks != self.ignore]
        if self.class_weights is None:
            return torch.tensor(valid.numel(), dtype=torch.float64)
        # Labels are counted where the loader left them; the class weights are on the device.
        counts = torch.bincount(valid, minlength=len(self.class_weights)).double()
        return (counts * self.class_weights.cpu().double()).sum()

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Sum the losses of N x K x H x W logits against N x H x W labels."""
        logits = logits.float()
        losses = F.cross_entropy(
            logits, masks, self.class_weights, ignore_index=self.ignore, reduction="none"
        )
        if (ohem := self.settings.ohem) is None:
            return losses.sum()
        return torch.stack(
            [self._hard(*one, ohem) for one in zip(losses, logits, masks, strict=True)]
        ).sum()

    def _hard(self, losses: Tensor, logits: Tensor, mask: Tensor, ohem: float) -> Tensor:
        """Sum the losses of an image's hard pixels, scaled to the weight of all its valid pixels.

        So the weight does not depend on logits, and the mean over kept pixels remains a mean.
        """
        valid = mask != self.ignore
        total = int(valid.sum())
        if not total:
            return losses.sum()
        with torch.no_grad():
            target = mask.clamp(0, logits.shape[0] - 1)
            plain = F.cross_entropy(logits[None], target[None], reduction="none")[0].masked_fill(
                ~valid, -1
            )
            least = max(1, math.ceil(self.settings.ohem_keep * total))
            threshold = torch.minimum(
                plain.flatten().kthvalue(plain.numel() - least + 1).values,
                plain.new_tensor(-math.log(ohem)),
            )
            # Not `plain >= threshold`: a NaN must be kept, so that training stops.
            kept = valid & ~(plain < threshold)
            weights = (
                valid.float() if self.class_weights is None else self.class_weights[target] * valid
            )
            scale = weights.sum() / weights[kept].sum().clamp(min=1e-12)
        return losses[kept].sum() * scale


class OwnLoss(CrossEntropy):
    """The user's own loss, `loss.function: package.module:callable`, in place of cross entropy.

    The callable is called with `num_classes=K, ignore=I` and returns a function, or module, that
    takes N x K x H x W scores and N x H x W labels to the loss of each pixel, N x H x W. It knows
    nothing of micro-batches and processes: ignored pixels are left out, class weights multiply it,
    and the weight is that of cross entropy. Since it is code, it comes from the user's settings
    alone (`refuse_code`).

    Raises UsageError: no such callable, one that fails, or a module with parameters, which nobody
    would train.
    """

    may_draw = True

    def __init__(
        self, settings: LossSettings, weights: Tensor | None, ignore: int, num_classes: int
    ) -> None:
        super().__init__(settings, weights, ignore)
        self.num_classes = num_classes
        self.name = f"loss.function={settings.function}"
        make = load_callable(str(settings.function), "loss.function", "(num_classes=, ignore=)")
        with own_code(self.name):
            self.function: Callable[[Tensor, Tensor], Tensor] = make(
                num_classes=num_classes, ignore=ignore
            )
        if not callable(self.function):
            raise UsageError(
                f"{self.name}: gave a {type(self.function).__name__}, expected a function of "
                "scores and labels"
            )
        if isinstance(self.function, nn.Module):
            trained = [name for name, one in self.function.named_parameters() if one.requires_grad]
            if trained:
                raise UsageError(
                    f"{self.name}: has parameters ({trained[0]}), which nothing trains; put them "
                    "into the network (model.factory), or freeze them: requires_grad_(False)"
                )

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Sum the losses of N x K x H x W scores against N x H x W labels."""
        # In float32 throughout, whatever the network computes in.
        with torch.autocast(logits.device.type, enabled=False):
            losses = self.function(logits.float(), masks)
        if not isinstance(losses, Tensor) or losses.shape != masks.shape:
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise UsageError(
                f"{self.name}: gave {shape} for labels {tuple(masks.shape)}, expected the loss of "
                'each pixel (reduction="none")'
            )
        valid = masks != self.ignore
        losses = losses.float()
        if self.class_weights is not None:
            losses = losses * self.class_weights[masks.masked_fill(~valid, 0)]
        # A loss that is not finite stays so at valid pixels, and the trainer reports it.
        return losses.masked_fill(~valid, 0).sum()

    def try_out(self, device: torch.device) -> None:
        """Call it once on random scores; raise UsageError where it fails or has no gradient."""
        draw = torch.Generator().manual_seed(0)
        scores = torch.randn(1, self.num_classes, *TRIED, generator=draw).to(device)
        labels = torch.randint(self.num_classes, (1, *TRIED), generator=draw).to(device)
        labels[:, :4] = self.ignore
        with torch.random.fork_rng(devices=[]), own_code(self.name):
            total = self(scores.requires_grad_(), labels)
            if total.requires_grad:
                torch.autograd.grad(total, scores)
                return
        raise UsageError(
            f"{self.name}: does not depend on the scores, so that nothing is learnt; expected a "
            "loss with a gradient (no argmax, no detach)"
        )


class LossModel(nn.Module):
    """Network and loss as one module for DDP and torch.compile: images, masks -> sum of losses.

    `auxiliary` is the weight of the auxiliary head's loss; 0 if the network has no such head.
    """

    def __init__(self, model: Segmenter, loss: CrossEntropy, auxiliary: float = 0) -> None:
        super().__init__()
        self.model, self.loss, self.auxiliary = model, loss, auxiliary

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        if not self.auxiliary:
            return self._sum(self.model(images, own_grid=True), images, masks)
        features = self.model.forward_features(images, own_grid=True)
        main, auxiliary = (
            self._sum(features[name], images, masks) for name in ("logits", "auxiliary")
        )
        return main + self.auxiliary * auxiliary

    def _sum(self, scores: Tensor, images: Tensor, masks: Tensor) -> Tensor:
        """Sum over the images one by one, and recompute each in the backward pass.

        Logits at full size take K numbers per pixel, three times that with their logarithms and
        gradients: this way memory holds those of one image at a time.
        """
        losses: list[Tensor] = [
            checkpoint(
                self._of_picture,
                *one,
                images,
                use_reentrant=False,
                preserve_rng_state=self.loss.may_draw,
            )
            for one in zip(torch.split(scores, 1), torch.split(masks, 1), strict=True)
        ]
        return torch.stack(losses).sum()

    def _of_picture(self, scores: Tensor, mask: Tensor, images: Tensor) -> Tensor:
        loss: Tensor = self.loss(self.model.resize(scores, images), mask)
        return loss


def class_weights(
    settings: LossSettings, frequency_weights: list[float] | None, num_classes: int
) -> Tensor | None:
    """Return the class weights of a recipe, raised to `loss.weight_power`; None without any.

    Args:
        settings: The loss section of the recipe.
        frequency_weights: Weights of the train split, for `median_frequency`.
        num_classes: The expected number of weights.

    Raises:
        UsageError: Their number is another.
    """
    if settings.class_weights is None:
        return None
    values = (
        frequency_weights
        if settings.class_weights == "median_frequency"
        else settings.class_weights
    )
    assert values is not None
    if len(values) != num_classes:
        raise UsageError(
            f"loss.class_weights: found {len(values)} weights, "
            f"expected one for each of {num_classes} classes"
        )
    return torch.tensor(values, dtype=torch.float32) ** settings.weight_power
