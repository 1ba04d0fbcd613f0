"""A loss of the user's own, made by `loss.function: package.module:callable`.

The callable is called with `num_classes=K, ignore=I` and returns a function, or module, that takes
N x K x H x W scores and N x H x W labels to the loss of each pixel, N x H x W. It knows nothing of
micro-batches and processes: ignored pixels are left out, and the sum divided by the step's weight,
as for cross entropy. Since it is code, it comes from the user's settings alone (`refuse_code`).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from seenet.core.errors import UsageError
from seenet.core.files import load_callable, own_code
from seenet.core.settings import LossSettings
from seenet.training.losses import CrossEntropy

TRIED = (33, 47)
"""Height and width of the scores on which it is tried before the first step."""


class OwnLoss(CrossEntropy):
    """The user's loss in place of cross entropy, with the same weight; class weights multiply it.

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
