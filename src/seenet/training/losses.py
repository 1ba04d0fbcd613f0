"""Cross entropy with class weights and hard examples, and the module of network and loss.

A loss sees one batch of logits and labels. It returns the *sum* of its terms, and computes from the
labels alone the *weight* by which the sum is divided for a mean. `training.trainer` adds the
weights of all micro-batches and processes and divides by their total: a crop without valid pixels
adds 0, and splitting a step changes nothing.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seenet.core.errors import UsageError
from seenet.core.settings import LossSettings
from seenet.model import Segmenter


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
        if self.settings.ohem is None:
            return losses.sum()
        return torch.stack(
            [self._hard(*one) for one in zip(losses, logits, masks, strict=True)]
        ).sum()

    def _hard(self, losses: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
        """Sum the losses of an image's hard pixels, scaled to the weight of all its valid pixels.

        So the weight does not depend on logits, and the mean over kept pixels remains a mean.
        """
        assert self.settings.ohem is not None
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
                plain.new_tensor(-math.log(self.settings.ohem)),
            )
            # Not `plain >= threshold`: a NaN must be kept, so that training stops.
            kept = valid & ~(plain < threshold)
            weights = (
                valid.float() if self.class_weights is None else self.class_weights[target] * valid
            )
            scale = weights.sum() / weights[kept].sum().clamp(min=1e-12)
        return losses[kept].sum() * scale


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
