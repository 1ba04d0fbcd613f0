"""Training: one step (`Learner.update`), and a run of many with its validations (`Trainer`)."""

import logging
import math
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seenet import __version__
from seenet.core.errors import DataError, NotFiniteError, Stopped
from seenet.core.main_guard import check_main_guard
from seenet.core.progress import Advance, bar
from seenet.core.recipe_files import dump
from seenet.core.settings import Recipe
from seenet.evaluation.evaluator import Evaluation
from seenet.model.files import card_of
from seenet.prediction.device import choose_device
from seenet.training import checkpoint
from seenet.training.distributed import Ranks, ranks
from seenet.training.logging import Metrics, memory_mib
from seenet.training.optim import EMA, build_optimizer, rate_factor, set_rate
from seenet.training.precision import is_finite, running_statistics
from seenet.training.run import IdleSignal, StopRequest, open_run, origin, stop_requests
from seenet.training.setup import (
    Batch,
    build_loss,
    build_model,
    choose_precision,
    memory_format,
    open_data,
    parallelize,
    set_train_mode,
    step_batches,
)
from seenet.training.validation import best_result, models_written, save_models, score

log = logging.getLogger("seenet")


@dataclass(frozen=True)
class TrainResult:
    """The end of a run: `miou` and `result` of its best validation, None where the recipe has none.

    `first` says that this is the one of several processes that tells of it.
    """

    out: Path
    steps: int
    miou: float | None
    result: dict[str, Any] | None
    first: bool = True


def train(recipe: Recipe, out: Path, *, resume: bool = False, device: str = "auto", command: str | None = None) -> TrainResult:
    """Run a recipe into the folder `out`, or resume the run there.

    Args:
        recipe: Without stages (those are `stages.train_recipe`'s).
        out: The run's folder.
        resume: Go on with the run in `out`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        command: Quoted in results and models.

    Raises:
        UsageError, DataError: Before the first step.
        BusyError: Another process holds the run.
        NotFiniteError: Before a number that is not finite is saved.
        Stopped: After a signal, with everything saved.
    """
    where = choose_device(device)
    with ranks(where) as group:
        return train_in_group(group, recipe, out, where, resume=resume, command=command)


def train_in_group(group: Ranks, recipe: Recipe, out: Path, device: torch.device, *, resume: bool, command: str | None) -> TrainResult:
    """Train as `train` does, among the processes of a group that exists already."""
    with open_run(out, recipe, resume=resume, rank=group.rank):
        group.check_batch(recipe.training.batch, recipe.training.accumulate)
        return Trainer(recipe, out, device, group, command).fit()


class Learner:
    """Network, loss, optimizer and moving average of a recipe, after `step` steps; writes nothing.

    It starts from the checkpoint `found` where there is one. `name` stands before its errors.
    """

    def __init__(self, recipe: Recipe, device: torch.device, group: Ranks, name: str, found: checkpoint.Checkpoint | None = None) -> None:
        self.recipe, self.device, self.group, self.name = recipe, device, group, name
        if recipe.training.workers:
            check_main_guard("set training.workers=0")
        self.data = open_data(recipe)
        self.model = build_model(recipe, self.data, device, found.state.get("network") if found else None)
        self.loss_model = build_loss(recipe, self.data, self.model, device)
        self.optimizer = build_optimizer(self.model, recipe.optimizer)
        self.ema = EMA(self.model, recipe.training.ema) if recipe.training.ema else None
        self.step = 0
        set_train_mode(self.model, recipe)
        self.precision = choose_precision(recipe, self.model, device, group, before=found.state["precision"] if found else None)
        if found:
            self._restore(found)
        self._check_shared()
        self.parallel = parallelize(self.loss_model, device, group, compiled=recipe.training.compile)
        per_process = recipe.training.batch // group.world // recipe.training.accumulate
        if per_process < 4 and not recipe.training.freeze_norms:
            log.warning(
                "batch norm sees %d image(s) a process: statistics are rough; use a larger batch or training.freeze_norms=true",
                per_process,
            )

    def update(self, micro_batches: tuple[Batch, ...]) -> tuple[float, float]:
        """Take one optimizer step: forward, backward, clip, update; reject non-finite values.

        Args:
            micro_batches: This process's share of the step; gradients are accumulated over them.

        Returns:
            The loss of the step, over all processes, and its learning rate.

        Raises:
            NotFiniteError: On every process, before a number that is not finite is saved.
        """
        recipe, group, scaler = self.recipe, self.group, self.precision.scaler
        layout = memory_format(recipe)
        torch.manual_seed((recipe.seed * 1_000_003 + self.step) * 4099 + group.rank)
        set_train_mode(self.model, recipe)
        factor = rate_factor(self.step, recipe.training.steps, recipe.optimizer)
        set_rate(self.optimizer, factor)

        # Forward and backward. The loss is a mean over the step: all micro-batches, all processes.
        weights = [self.loss_model.loss.weight(masks) for _, masks, _ in micro_batches]
        weight = group.sum(torch.stack(weights).sum())
        # At least one pixel; class weights may sum to less than that and stay what they are.
        weight = (weight if weight > 0 else torch.ones_like(weight)).to(self.device, torch.float32)
        total = torch.zeros((), dtype=torch.float64)
        for index, (images, masks, _) in enumerate(micro_batches):
            images = images.to(self.device, memory_format=layout, non_blocking=True)
            masks = masks.to(self.device, non_blocking=True)
            last = group.world == 1 or index == len(micro_batches) - 1
            # Gradients are summed over processes once a step.
            with nullcontext() if last else self.parallel.no_sync():
                with self.precision.autocast():
                    loss = self.parallel(images, masks) / weight
                # DDP averages gradients over processes; the weight already counts them all.
                scaler.scale(loss * group.world).backward()
            total += loss.detach().cpu().double()
        step_loss = group.sum(total).item()

        # Clip. Gradients that overflow under a loss scale are no fault: the scaler skips the step.
        scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        overflow = scaler.is_enabled() and not torch.isfinite(norm)
        # A variance that overflows makes its norm's output 0: loss and gradients are finite then.
        statistics = is_finite(running_statistics(self.model))
        finite = math.isfinite(step_loss) and statistics and bool(overflow or torch.isfinite(norm))
        if group.any(not finite):
            what = "" if statistics else ", statistics of a batch norm that overflow"
            raise self._not_finite(step_loss, f"gradient norm {norm:.4g}{what}", factor, micro_batches)
        if overflow:
            message = "step %d: gradients overflow at loss scale %.0f; step skipped, scale lowered"
            log.info(message, self.step + 1, scaler.get_scale())
        elif recipe.optimizer.clip:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), recipe.optimizer.clip, norm)

        # Update. The weights are the same on all processes.
        scaler.step(self.optimizer)
        if not is_finite(self.model.parameters()):
            raise self._not_finite(step_loss, "weights that overflow in the update", factor, micro_batches)
        scale = scaler.get_scale()
        scaler.update()
        self.precision.check_scale()
        self.optimizer.zero_grad(set_to_none=True)
        # A step that was skipped lowers the scale, and moved no weights.
        if self.ema and scaler.get_scale() >= scale:
            self.ema.update(self.model)
        return step_loss, recipe.optimizer.rate * factor

    def _restore(self, found: checkpoint.Checkpoint) -> None:
        """Restore a checkpoint; raise DataError for other data or another network."""
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
        """Raise DataError where the ranks see other checkpoints: their steps would differ."""
        first = self.group.from_first(self.step)
        if self.group.any(first != self.step):
            raise DataError(
                f"{self.name}: rank {self.group.rank} finds the checkpoint of step {self.step}, "
                f"rank 0 that of step {first}; expected one folder for all machines, "
                "give with --out one that they share"
            )

    def _not_finite(self, loss: float, what: str, factor: float, micro_batches: tuple[Batch, ...]) -> NotFiniteError:
        indices = [int(index) for _, _, draws in micro_batches for _, index in draws]
        samples = [self.data.train.key(index) for index in indices]
        rate = self.recipe.optimizer.rate * factor
        return NotFiniteError(
            f"{self.name}: step {self.step + 1}: loss {loss:.4g}, {what} at rate {rate:.3g}, "
            f"samples {', '.join(samples)}; lower optimizer.rate, or set optimizer.clip"
        )


class Trainer(Learner):
    """A run: steps until the last one, with validations and checkpoints, in the folder `out`."""

    def __init__(self, recipe: Recipe, out: Path, device: torch.device, group: Ranks, command: str | None = None) -> None:
        found = checkpoint.newest(out / "checkpoints")
        super().__init__(recipe, device, group, str(out), found)
        self.out, self.command = out, command
        self.best: dict[str, Any] = found.state["best"] if found else {}
        # A finished run is not validated again: its files are the ones whose hashes were published.
        self.finished = self.step == recipe.training.steps and models_written(out, self.step)
        keep_bytes = int(found.state["metrics_bytes"]) if found else 0
        writes = group.first and not self.finished
        self.metrics = Metrics(out, keep_bytes=keep_bytes) if writes else None

    def fit(self) -> TrainResult:
        """Train until the last step; raise Stopped after a signal, with the step saved."""
        recipe, group, training = self.recipe, self.group, self.recipe.training
        if self.finished:
            return self._result()
        batches = step_batches(recipe, self.data, self.model, first_step=self.step, rank=group.rank, world=group.world)
        with stop_requests() as stop, bar("training", training.steps, self.step) as advance, closing(batches):
            while True:
                # A step's checkpoint comes before its validation, with which a resumed run begins.
                if self.validation_due:
                    self.validate(stop)
                if self.step == training.steps:
                    return self._result()
                waiting = time.perf_counter()
                try:
                    # Several processes stop after the same step.
                    with stop.idle() if group.world == 1 else nullcontext():
                        micro_batches = next(batches)
                except IdleSignal:
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
        what = f"{self.out}: stopped after step {self.step}, saved; go on with --resume"
        return Stopped(what, stop.code or 143)

    @property
    def validation_due(self) -> bool:
        """Whether this step ends with a validation; the last one always does."""
        every = self.recipe.training.validate_every
        return self.step > 0 and (self.step == self.recipe.training.steps or bool(every and self.step % every == 0))

    def validate(self, stop: StopRequest) -> None:
        """Score the val split; write the last model, and the best where it is the best so far."""
        model, labels, val = self.model, self.data.train.labels, self.data.val
        weights = self.ema.state if self.ema else model.state_dict()
        result: dict[str, Any] | None = None
        if val is not None:
            # Norms that are not synchronized differ by rank; the first one's are kept.
            self.group.share(weights.values())
            evaluation = score(model, weights, labels, val, self.device, self.group, stop)
            result = self._record_validation(evaluation)
        if self.group.first:
            notes = {"recipe": dump(self.recipe), "step": self.step}
            notes |= origin(self.device, self.command)
            best = result is None or result is self.best
            save_models(self.out, model, labels, weights, notes, result, best=best)

    def save(self) -> None:
        """Write a checkpoint from which the run goes on bit for bit."""
        if not self.group.first or self.metrics is None:
            return
        tensors = {"model": self.model.state_dict(), "optimizer": checkpoint.pack_optimizer(self.optimizer)}
        if self.ema:
            tensors["ema"] = self.ema.state
        state = {
            "step": self.step,
            "best": self.best,
            "metrics_bytes": self.metrics.bytes(),
            "ema_updates": self.ema.updates if self.ema else 0,
            "scaler": self.precision.scaler.state_dict(),
            "precision": self.precision.name,
            **self.data.record,
            "version": __version__,
            "network": card_of(self.model),
        }
        content = checkpoint.Checkpoint(tensors, state)
        checkpoint.save(self.out / "checkpoints", self.step, content, self.recipe.training.keep)

    def _log(self, loss: float, rate: float, started: float, waited: float, advance: Advance) -> None:
        seconds = time.perf_counter() - started + waited
        speed = self.recipe.training.batch / seconds
        memory = memory_mib(self.device)
        advance(1, f"loss {loss:.3f}, {speed:.1f} images/s, {memory:.0f} MiB")
        if self.metrics:
            times = {"images_per_s": round(speed, 2), "waited": round(waited / seconds, 3)}
            self.metrics.write(self.step, loss=loss, rate=rate, memory_mib=round(memory), **times)

    def _record_validation(self, evaluation: Evaluation) -> dict[str, Any]:
        result = evaluation.result(command=self.command)
        result |= {"step": self.step, "precision_of_training": self.precision.name}
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
