"""Cross entropy over the valid pixels of a whole step, with class weights, hard examples and the auxiliary head."""

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seenet.core.errors import UsageError
from seenet.core.settings import LossSettings
from seenet.model import Segmenter
from seenet.training.recompute import recomputed_norms


class LossModel(nn.Module):
    """Network and loss in one module, so that DDP wraps both: images, masks, divisor -> the micro-batch's share of the step's loss.

    The loss of a step is sum over valid pixels / `divisor`, where the divisor is known from the labels alone (`divisor_of`, summed over
    ranks and micro-batches): a crop without valid pixels adds 0, and splitting a step changes nothing.
    """

    def __init__(self, model: Segmenter, settings: LossSettings, weights: Tensor | None, ignore: int) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.ignore = ignore
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)

    def divisor_of(self, masks: Tensor) -> Tensor:
        """Valid pixels of these masks, or the sum of their class weights; float64 scalar."""
        valid = masks[masks != self.ignore]
        if self.class_weights is None:
            return torch.tensor(valid.numel(), dtype=torch.float64)
        # Labels are counted where the loader left them, the weights live with the network.
        counts = torch.bincount(valid, minlength=len(self.class_weights)).double()
        return (counts * self.class_weights.cpu().double()).sum()

    def forward(self, images: Tensor, masks: Tensor, divisor: Tensor) -> Tensor:
        # What is compiled decides by itself what it keeps.
        with nullcontext() if torch.compiler.is_compiling() else recomputed_norms(self.model):
            if not self.settings.auxiliary:
                return self._loss(self.model(images, own_grid=True), images, masks) / divisor
            features = self.model.forward_features(images, own_grid=True)
            main, auxiliary = (self._loss(features[name], images, masks) for name in ("logits", "auxiliary"))
            return (main + self.settings.auxiliary * auxiliary) / divisor

    def _loss(self, scores: Tensor, images: Tensor, masks: Tensor) -> Tensor:
        """Sum over the pictures. One after the other, and again in the backward pass, so that scores at full size, of K numbers a pixel and
        three times that with their logarithms and gradients, are there of one picture at a time."""
        pictures = zip(torch.split(scores, 1), masks, strict=True)
        losses = [checkpoint(self._of_picture, *pair, images, use_reentrant=False, preserve_rng_state=False) for pair in pictures]
        return torch.stack(losses).sum()

    def _of_picture(self, scores: Tensor, mask: Tensor, images: Tensor) -> Tensor:
        """Sum of weighted losses. Kept hard examples are scaled up so that their weights sum to those of all valid pixels of the crop:
        the divisor needs no look at scores, and the mean over kept pixels stays a mean."""
        weights = None if self.class_weights is None else self.class_weights.to(torch.float32)
        logits = self.model.resize(scores, images)
        losses = F.cross_entropy(logits.float(), mask[None], weight=weights, ignore_index=self.ignore, reduction="none")
        return losses.sum() if self.settings.ohem is None else self._hard(losses[0], logits[0], mask)

    def _hard(self, losses: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
        assert self.settings.ohem is not None
        valid = mask != self.ignore
        total = int(valid.sum())
        if not total:
            return losses.sum()
        with torch.no_grad():
            target = mask.clamp(0, logits.shape[0] - 1)
            plain = F.cross_entropy(logits.detach().float()[None], target[None], reduction="none")[0].masked_fill(~valid, -1)
            least = max(1, math.ceil(self.settings.ohem_keep * total))
            threshold = torch.minimum(
                plain.flatten().kthvalue(plain.numel() - least + 1).values,
                plain.new_tensor(-math.log(self.settings.ohem)),
            )
            # So that a loss that is not a number stays in, and is met.
            kept = valid & ~(plain < threshold)
            pixel_weights = valid.float() if self.class_weights is None else self.class_weights[target] * valid
            scale = pixel_weights.sum() / pixel_weights[kept].sum().clamp(min=1e-12)
        return losses[kept].sum() * scale


def class_weights(settings: LossSettings, frequency_weights: list[float] | None, num_classes: int) -> Tensor | None:
    """The weights that a recipe asks for, to the power it asks for; `frequency_weights` are the train split's median-frequency ones."""
    if settings.class_weights is None:
        return None
    values = frequency_weights if settings.class_weights == "median_frequency" else settings.class_weights
    assert values is not None
    if len(values) != num_classes:
        raise UsageError(f"loss.class_weights: found {len(values)} weights, expected one for each of {num_classes} classes")
    return torch.tensor(values, dtype=torch.float32) ** settings.weight_power
