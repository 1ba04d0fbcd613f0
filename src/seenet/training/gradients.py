"""The gradients of one step: over its micro-batches, on all processes, and none that is not finite."""

import logging
import math
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from seenet.core.settings import Recipe
from seenet.distributed import Ranks
from seenet.training.losses import LossModel
from seenet.training.precision import Precision
from seenet.training.setup import Batch, memory_format

log = logging.getLogger("seenet")


class Gradients:
    """Of a recipe's loss in a precision, the same on all processes of a group."""

    def __init__(self, recipe: Recipe, loss_model: LossModel, precision: Precision, device: torch.device, group: Ranks) -> None:
        self.loss_model, self.precision, self.device, self.group = loss_model, precision, device, group
        self.clip, self.layout = recipe.optimizer.clip, memory_format(recipe)
        self.parallel = _parallel(loss_model, device, group, compiled=recipe.training.compile)

    def add(self, micro_batches: tuple[Batch, ...]) -> Tensor:
        """Forward and backward of all micro-batches; returns the loss of the whole step, over all processes. Gradients are scaled."""
        local = torch.stack([self.loss_model.divisor_of(masks) for _, masks, _ in micro_batches]).sum()
        # At least one pixel; class weights may sum to less than that and stay what they are.
        divisor = self.group.sum(local)
        divisor = (divisor if divisor > 0 else torch.ones_like(divisor)).to(self.device, torch.float32)
        total = torch.zeros((), dtype=torch.float64)
        for index, (images, masks, _) in enumerate(micro_batches):
            last = index == len(micro_batches) - 1
            images = images.to(self.device, memory_format=self.layout, non_blocking=True)
            masks = masks.to(self.device, non_blocking=True)
            with self._synchronised(last):
                with self.precision.autocast():
                    loss = self.parallel(images, masks, divisor)
                # DDP averages gradients over ranks; the divisor already counts them all.
                self.precision.scaler.scale(loss * self.group.world).backward()
            total += loss.detach().cpu().double()
        return self.group.sum(total)

    def settle(self, loss: Tensor, step: int) -> str | None:
        """Clip the unscaled gradients of `step`; where loss, gradients or statistics are not finite, on any process: what was found here.

        Gradients that overflow under a loss scale are nothing wrong: the scaler skips the step.
        """
        model = self.loss_model.model
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        finite = bool(torch.isfinite(norm))
        overflow = self.precision.scaler.is_enabled() and not finite
        # A variance that overflows makes its norm's output 0, with which the loss and all gradients are finite.
        sound = is_finite(value for name, value in model.named_buffers() if name.rpartition(".")[2].startswith("running_"))
        bad = not sound or not math.isfinite(loss.item()) or not (finite or overflow)
        if self.group.any(bad):
            return f"gradient norm {float(norm):.4g}" + ("" if sound else ", statistics of a batch norm that overflow")
        if overflow:
            scale = self.precision.scaler.get_scale()
            log.info("step %d: gradients overflow at loss scale %.0f; step skipped, scale lowered", step, scale)
        elif self.clip:
            nn.utils.clip_grads_with_norm_(model.parameters(), self.clip, norm)
        return None

    def _synchronised(self, last: bool) -> Any:
        return self.parallel.no_sync() if isinstance(self.parallel, DistributedDataParallel) and not last else nullcontext()


def is_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers are; the largest of them tells."""
    some = [tensor.detach() for tensor in tensors if tensor.numel()]
    return not some or bool(torch.isfinite(nn.utils.get_total_norm(some, math.inf)))


def _parallel(loss_model: LossModel, device: torch.device, group: Ranks, *, compiled: bool) -> nn.Module:
    module: nn.Module = loss_model
    if group.world > 1:
        cuda = device.type == "cuda"
        if cuda:
            # timm's own: torch's would drop the activations that timm keeps inside its norms.
            module = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        module = DistributedDataParallel(module, device_ids=[device.index] if cuda else None)
    if compiled:
        module.compile()
    return module
