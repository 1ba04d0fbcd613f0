"""A network in training and the step that moves it, as a run and its forecast take it."""

import logging

import torch
from torch import Tensor

from seenet.core.errors import DataError, NotFiniteError
from seenet.core.main_guard import check_main_guard
from seenet.core.settings import Recipe
from seenet.distributed import Ranks
from seenet.training import checkpoint
from seenet.training.ema import EMA
from seenet.training.gradients import Gradients, is_finite
from seenet.training.optim import build_optimizer, rate_factor, set_rate
from seenet.training.setup import Batch, build_loss, build_model, choose_precision, open_data, set_train_mode

log = logging.getLogger("seenet")


class Learner:
    """Network, loss, optimizer and average of a recipe after `step` steps; from the checkpoint `found`, or from the start.

    `name` stands before its errors. Nothing is written.
    """

    def __init__(self, recipe: Recipe, device: torch.device, group: Ranks, name: str, found: checkpoint.Checkpoint | None = None) -> None:
        self.recipe, self.device, self.group, self.name = recipe, device, group, name
        if recipe.training.workers:
            check_main_guard("set training.workers=0")
        self.data = open_data(recipe)
        self.model = build_model(recipe, self.data, device, found.state.get("network") if found else None)
        loss_model = build_loss(recipe, self.data, self.model, device)
        self.optimizer = build_optimizer(self.model, recipe.optimizer)
        self.ema = EMA(self.model, recipe.training.ema) if recipe.training.ema else None
        self.step = 0
        set_train_mode(self.model, recipe)
        self.precision = choose_precision(recipe, self.model, device, group, before=found.state["precision"] if found else None)
        if found:
            self._restore(found)
        self._check_shared()
        self.gradients = Gradients(recipe, loss_model, self.precision, device, group)
        per_process = recipe.training.batch // group.world // recipe.training.accumulate
        if per_process < 4 and not recipe.training.freeze_norms:
            log.warning(
                "batch norm sees %d image(s) a process: statistics are rough; use a larger batch or training.freeze_norms=true",
                per_process,
            )

    def update(self, micro_batches: tuple[Batch, ...]) -> tuple[float, float]:
        """One optimizer step; returns its loss and rate. Nothing that is not finite reaches the weights."""
        recipe = self.recipe
        torch.manual_seed((recipe.seed * 1_000_003 + self.step) * 4099 + self.group.rank)
        set_train_mode(self.model, recipe)
        factor = rate_factor(self.step, recipe.training.steps, recipe.optimizer)
        set_rate(self.optimizer, factor)
        loss = self.gradients.add(micro_batches)
        self.precision.scaler.unscale_(self.optimizer)
        if found := self.gradients.settle(loss, self.step + 1):
            raise self._not_finite(loss, found, factor, micro_batches)
        self.precision.scaler.step(self.optimizer)
        # The same on all ranks.
        if not is_finite(self.model.parameters()):
            raise self._not_finite(loss, "weights that overflow in the update", factor, micro_batches)
        scale = self.precision.scaler.get_scale()
        self.precision.scaler.update()
        self.precision.check_scale()
        self.optimizer.zero_grad(set_to_none=True)
        # A step that was skipped lowers the scale, and moved no weights.
        if self.ema and self.precision.scaler.get_scale() >= scale:
            self.ema.update(self.model)
        return loss.item(), recipe.optimizer.rate * factor

    def _restore(self, found: checkpoint.Checkpoint) -> None:
        """Take up a checkpoint. DataError: other classes or pictures, another network."""
        other = f"start another run with --out, from these weights with training.start_from={self.name}"
        self.data.check_record(found.state, self.name, other)
        try:
            self.model.load_state_dict(found.tensors["model"])
            checkpoint.unpack_optimizer(self.optimizer, found.tensors["optimizer"])
            if self.ema:
                self.ema.load(found.tensors["ema"], found.state["ema_updates"])
        except (RuntimeError, KeyError, ValueError) as error:
            what = str(error).splitlines()[0][:120]
            raise DataError(f"{self.name}: its checkpoint does not fit this network ({what}); {other}") from None
        if found.state["scaler"]:
            self.precision.scaler.load_state_dict(found.state["scaler"])
        self.step = found.state["step"]
        log.info("resumed after step %d", self.step)

    def _check_shared(self) -> None:
        """DataError where processes of several machines do not look at the same checkpoints: they would train different steps as one."""
        first = self.group.from_first(self.step)
        if self.group.any(first != self.step):
            raise DataError(
                f"{self.name}: rank {self.group.rank} finds the checkpoint of step {self.step}, rank 0 that of step {first}; expected one "
                "folder for all machines, give with --out one that they share"
            )

    def _not_finite(self, loss: Tensor, found: str, factor: float, micro_batches: tuple[Batch, ...]) -> NotFiniteError:
        samples = [self.data.train.key(int(index)) for _, _, draws in micro_batches for _, index in draws]
        return NotFiniteError(
            f"{self.name}: step {self.step + 1}: loss {loss.item():.4g}, {found} at rate {self.recipe.optimizer.rate * factor:.3g}, "
            f"samples {', '.join(samples)}; lower optimizer.rate, or set optimizer.clip"
        )
