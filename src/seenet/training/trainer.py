"""The training loop."""

import logging
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seenet import __version__
from seenet.core.errors import DataError, NotFiniteError, Stopped
from seenet.core.progress import Advance, bar
from seenet.core.recipe_files import dump
from seenet.core.settings import Recipe
from seenet.evaluation.evaluator import Evaluation
from seenet.model.files import card_of
from seenet.prediction.device import choose_device
from seenet.training import checkpoint
from seenet.training.distributed import Ranks, ranks
from seenet.training.ema import EMA
from seenet.training.gradients import Gradients, is_finite
from seenet.training.logging import Metrics, memory_mib
from seenet.training.optim import build_optimizer, rate_factor, set_rate
from seenet.training.run import open_run, origin
from seenet.training.setup import Batch, build_loss, build_model, choose_precision, open_data, set_train_mode, step_batches
from seenet.training.signals import StopRequest, Waited, stop_requests
from seenet.training.validation import best_result, is_kept, keep_models, score

log = logging.getLogger("seenet")


@dataclass(frozen=True)
class TrainResult:
    """What a run came to; `miou` and `result` are of the best validation, None where the recipe has none. `first` of several processes
    tells of it.
    """

    out: Path
    steps: int
    miou: float | None
    result: dict[str, Any] | None
    first: bool = True


def train(recipe: Recipe, out: Path, *, resume: bool = False, device: str = "auto", command: str | None = None) -> TrainResult:
    """Run a recipe into the folder `out`, or go on with the run there; results quote `command`.

    Raises UsageError, DataError before the first step; NotFiniteError before a non-finite number reaches the weights; BusyError; Stopped
    after a signal, with everything saved.
    """
    where = choose_device(device)
    with ranks(where) as group:
        return train_in(group, recipe, out, where, resume=resume, command=command)


def train_in(group: Ranks, recipe: Recipe, out: Path, device: torch.device, *, resume: bool, command: str | None) -> TrainResult:
    """As `train`, among processes that have met already."""
    with open_run(out, recipe, resume=resume, rank=group.rank):
        group.check_batch(recipe.training.batch, recipe.training.accumulate)
        return Trainer(recipe, out, device, group, command).fit()


class Trainer:
    """A run in memory: what is trained, how far it is, how good it was."""

    def __init__(self, recipe: Recipe, out: Path, device: torch.device, group: Ranks, command: str | None = None) -> None:
        self.recipe, self.out, self.device, self.group, self.command = recipe, out, device, group, command
        self.data = open_data(recipe)
        found = checkpoint.newest(out / "checkpoints")
        self.model = build_model(recipe, self.data, device, found.state.get("network") if found else None)
        loss_model = build_loss(recipe, self.data, self.model, device)
        self.optimizer = build_optimizer(self.model, recipe.optimizer)
        self.ema = EMA(self.model, recipe.training.ema) if recipe.training.ema else None
        self.step = 0
        self.best: dict[str, Any] = {}
        set_train_mode(self.model, recipe)
        self.precision = choose_precision(recipe, self.model, device, group, before=found.state["precision"] if found else None)
        metrics_bytes = self._restore(found) if found else 0
        self._check_shared()
        self.gradients = Gradients(recipe, loss_model, self.precision, device, group)
        per_process = recipe.training.batch // group.world // recipe.training.accumulate
        if per_process < 4 and not recipe.training.freeze_norms:
            log.warning(
                "batch norm sees %d image(s) a process: statistics are rough; use a larger batch or training.freeze_norms=true",
                per_process,
            )
        # A finished run is not validated again: its files are the ones whose hashes were published.
        self.finished = self.step == recipe.training.steps and is_kept(out, self.step)
        self.metrics = Metrics(out, keep_bytes=metrics_bytes) if group.first and not self.finished else None

    def fit(self) -> TrainResult:
        recipe, group, training = self.recipe, self.group, self.recipe.training
        if self.finished:
            return self._result()
        batches = step_batches(recipe, self.data, self.model, first_step=self.step, rank=group.rank, world=group.world)
        with stop_requests() as stop, bar("training", training.steps, self.step) as advance, closing(batches):
            while True:
                # The checkpoint of a step comes before its validation, so that a resumed run begins with the latter.
                if self.validation_due:
                    self.validate(stop)
                if self.step == training.steps:
                    return self._result()
                waiting = time.perf_counter()
                try:
                    # Several processes stop after the same step.
                    with stop.idle() if group.world == 1 else nullcontext():
                        micro_batches = next(batches)
                except Waited:
                    self.save()
                    raise self._stopped(stop) from None
                started = time.perf_counter()
                loss, rate = self.update(micro_batches)
                self.step += 1
                self._log(loss, rate, started, started - waiting, advance)
                stopping = group.any(bool(stop.code))
                if stopping or self.validation_due or self.step % training.checkpoint_every == 0:
                    self.save()
                if stopping:
                    raise self._stopped(stop)

    def _stopped(self, stop: StopRequest) -> Stopped:
        return Stopped(f"{self.out}: stopped after step {self.step}, saved; go on with --resume", stop.code or 143)

    @property
    def validation_due(self) -> bool:
        """Whether this step ends with a validation; the last one does."""
        every = self.recipe.training.validate_every
        return self.step > 0 and (self.step == self.recipe.training.steps or bool(every and self.step % every == 0))

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

    def validate(self, stop: StopRequest) -> None:
        """Score the val split with the one predictor; keep the model where it is the best so far, and always as the last."""
        weights, labels = self.ema.state if self.ema else self.model.state_dict(), self.data.train.labels
        result: dict[str, Any] | None = None
        if self.data.val is not None:
            # Without synchronised norms each rank has statistics of its own; what is scored is what the first one keeps.
            self.group.share(weights.values())
            result = self._judge(score(self.model, weights, labels, self.data.val, self.device, self.group, stop))
        if self.group.first:
            notes = {"recipe": dump(self.recipe), "step": self.step, **origin(self.device, self.command)}
            keep_models(self.out, self.model, labels, weights, notes, result, best=result is None or result is self.best)

    def save(self) -> None:
        """Write a checkpoint from which the run goes on bit for bit."""
        if not self.group.first or self.metrics is None:
            return
        tensors = {"model": self.model.state_dict(), "optimizer": checkpoint.pack_optimizer(self.optimizer)}
        if self.ema:
            tensors["ema"] = self.ema.state
        state = {
            "step": self.step, "best": self.best, "metrics_bytes": self.metrics.bytes(), "ema_updates": self.ema.updates if self.ema else 0,
            "scaler": self.precision.scaler.state_dict(), "precision": self.precision.name,
            **self.data.record, "version": __version__, "network": card_of(self.model),
        }  # fmt: skip
        checkpoint.save(self.out / "checkpoints", self.step, checkpoint.Checkpoint(tensors, state), self.recipe.training.keep)

    def _restore(self, found: checkpoint.Checkpoint) -> int:
        """Take up a checkpoint; returns how much of metrics.jsonl belongs to it. DataError: other classes or pictures, another network."""
        other = f"start another run with --out, from these weights with training.start_from={self.out}"
        self.data.check_record(found.state, str(self.out), other)
        try:
            self.model.load_state_dict(found.tensors["model"])
            checkpoint.unpack_optimizer(self.optimizer, found.tensors["optimizer"])
            if self.ema:
                self.ema.load(found.tensors["ema"], found.state["ema_updates"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise DataError(f"{self.out}: its checkpoint does not fit this network ({str(error).splitlines()[0][:120]}); {other}") from None
        if found.state["scaler"]:
            self.precision.scaler.load_state_dict(found.state["scaler"])
        self.step, self.best = found.state["step"], found.state["best"]
        log.info("resumed after step %d", self.step)
        return int(found.state["metrics_bytes"])

    def _check_shared(self) -> None:
        """DataError where processes of several machines do not look at the same checkpoints: they would train different steps as one."""
        first = self.group.from_first(self.step)
        if self.group.any(first != self.step):
            raise DataError(
                f"{self.out}: rank {self.group.rank} finds the checkpoint of step {self.step}, rank 0 that of step {first}; expected one "
                "folder for all machines, give with --out one that they share"
            )

    def _not_finite(self, loss: Tensor, found: str, factor: float, micro_batches: tuple[Batch, ...]) -> NotFiniteError:
        samples = [self.data.train.key(int(index)) for _, _, draws in micro_batches for _, index in draws]
        return NotFiniteError(
            f"{self.out}: step {self.step + 1}: loss {loss.item():.4g}, {found} at rate {self.recipe.optimizer.rate * factor:.3g}, "
            f"samples {', '.join(samples)}; lower optimizer.rate, or set optimizer.clip"
        )

    def _log(self, loss: float, rate: float, started: float, waited: float, advance: Advance) -> None:
        seconds = time.perf_counter() - started
        speed = self.recipe.training.batch / (seconds + waited)
        memory = memory_mib(self.device)
        advance(1, f"loss {loss:.3f}, {speed:.1f} images/s, {memory:.0f} MiB")
        if self.metrics:
            self.metrics.write(
                self.step,
                loss=loss,
                rate=rate,
                images_per_s=round(speed, 2),
                memory_mib=round(memory),
                waited=round(waited / (seconds + waited), 3),
            )

    def _judge(self, evaluation: Evaluation) -> dict[str, Any]:
        result = {**evaluation.result(command=self.command), "step": self.step, "precision_of_training": self.precision.name}
        if self.metrics:
            self.metrics.write(self.step, val={"miou": result["miou"], "loss": result["loss"]})
        log.info("step %d: val mIoU %.2f %%, loss %.4f", self.step, 100 * result["miou"], result["loss"])
        if not self.best or result["miou"] > self.best["miou"]:
            self.best = result
        return result

    def _result(self) -> TrainResult:
        if self.metrics:
            self.metrics.close()
        best = best_result(self.out) if self.finished else self.best
        return TrainResult(self.out, self.step, best.get("miou"), best or None, self.group.first)
