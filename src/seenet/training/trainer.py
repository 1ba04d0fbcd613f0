"""Training: one optimizer step (`Learner.update`) and a whole run (`Trainer.fit`)."""

import logging
import math
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seenet import __version__
from seenet.core.device import choose_device
from seenet.core.errors import DataError, NotFiniteError, Stopped
from seenet.core.main_guard import check_main_guard
from seenet.core.progress import Advance, bar
from seenet.core.recipe_files import dump
from seenet.core.settings import Recipe
from seenet.distributed import Ranks, init_process_group
from seenet.model.files import card_of
from seenet.training import checkpoint, setup, validation
from seenet.training.logging import Metrics, memory_mib
from seenet.training.optim import EMA, build_optimizer, rate_factor, set_rate
from seenet.training.precision import is_finite, running_statistics
from seenet.training.run import IdleSignal, StopRequest, open_run, origin, stop_requests

log = logging.getLogger("seenet")


@dataclass(frozen=True)
class TrainResult:
    """Result of a run: `miou` and `result` of its best validation, None without validation.

    `first` is true on the rank that reports the result.
    """

    out: Path
    steps: int
    miou: float | None
    result: dict[str, Any] | None
    first: bool = True


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: str | torch.device = "auto",
    command: str | None = None,
) -> TrainResult:
    """Train a recipe without stages into the folder `out`, or resume the run there.

    Args:
        recipe: The settings; `stages.train_recipe` takes those with stages.
        out: The run's folder.
        resume: Continue the run in `out`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        command: The command line, for result files and models.

    Raises:
        UsageError, DataError: Wrong settings or data, before the first step.
        BusyError: Another process holds the run.
        NotFiniteError: A number is not finite; nothing that contains one is saved.
        Stopped: A signal asked to stop; everything is saved.
    """
    where, training = choose_device(device), recipe.training
    with (
        init_process_group(where, timedelta(minutes=training.timeout_minutes)) as group,
        open_run(out, recipe, resume=resume, rank=group.rank),
    ):
        group.check_batch(training.batch, training.accumulate)
        return Trainer(recipe, out, where, group, command).fit()


class Learner:
    """Network, loss, optimizer and moving average of a recipe after `step` steps.

    It writes no files. `name` begins its error messages; `found` is the checkpoint to start from.
    """

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        group: Ranks,
        name: str,
        found: checkpoint.Checkpoint | None = None,
    ) -> None:
        self.recipe, self.device, self.group, self.name = recipe, device, group, name
        training, state = recipe.training, found.state if found else {}
        if training.workers:
            check_main_guard("set training.workers=0")
        self.data = setup.open_data(recipe)
        self.model = setup.build_model(recipe, self.data, device, state.get("network"))
        self.loss_model = setup.build_loss(recipe, self.data, self.model, device)
        self.optimizer = build_optimizer(self.model, recipe.optimizer)
        self.ema = EMA(self.model, training.ema) if training.ema else None
        self.step = 0
        setup.set_train_mode(self.model, recipe)
        self.precision = setup.choose_precision(
            recipe, self.model, device, group, state.get("precision")
        )
        if found:
            self._restore(found)
        checkpoint.check_shared(self.step, group, name)
        self.parallel = setup.parallelize(self.loss_model, device, group, compiled=training.compile)
        setup.warn_small_batch(training, group.world)

    def update(self, micro_batches: tuple[setup.Batch, ...]) -> tuple[float, float]:
        """Take one optimizer step: forward, backward, clip, update; reject non-finite values.

        Args:
            micro_batches: This process's share of the step; gradients are accumulated over them.

        Returns:
            The loss of the step, over all processes, and its learning rate.

        Raises:
            NotFiniteError: On every process, before a number that is not finite is saved.
        """
        recipe, group, scaler = self.recipe, self.group, self.precision.scaler
        layout = setup.memory_format(recipe)
        torch.manual_seed((recipe.seed * 1_000_003 + self.step) * 4099 + group.rank)
        setup.set_train_mode(self.model, recipe)
        factor = rate_factor(self.step, recipe.training.steps, recipe.optimizer)
        set_rate(self.optimizer, factor)

        # Forward and backward. The loss is a mean over the step: all micro-batches, all processes.
        weights = [self.loss_model.loss.weight(masks) for _, masks, _ in micro_batches]
        weight = group.sum(torch.stack(weights).sum())
        # 1 if no pixel is valid; class weights may sum to less and are kept.
        weight = (weight if weight > 0 else torch.ones_like(weight)).to(self.device, torch.float32)
        total = torch.zeros((), dtype=torch.float64)
        for index, (images, masks, _) in enumerate(micro_batches):
            images = images.to(self.device, memory_format=layout, non_blocking=True)
            masks = masks.to(self.device, non_blocking=True)
            last = group.world == 1 or index == len(micro_batches) - 1
            # DDP sums gradients over processes once a step, with the last micro-batch.
            with nullcontext() if last else self.parallel.no_sync():
                with self.precision.autocast():
                    loss = self.parallel(images, masks) / weight
                # DDP averages over processes, but the weight already counts all of them.
                scaler.scale(loss * group.world).backward()
            total += loss.detach().cpu().double()
        step_loss = group.sum(total).item()

        # Clip. Gradients that overflow under a loss scale are no error: the scaler skips the step.
        scaler.unscale_(self.optimizer)
        gradients = [
            parameter.grad for parameter in self.model.parameters() if parameter.grad is not None
        ]
        norm = nn.utils.get_total_norm(gradients)
        overflow = scaler.is_enabled() and not torch.isfinite(norm)
        # A variance that overflows makes its norm's output 0; loss and gradients stay finite.
        statistics = is_finite(running_statistics(self.model))
        finite = math.isfinite(step_loss) and statistics and bool(overflow or torch.isfinite(norm))
        if group.any(not finite):
            what = "" if statistics else ", statistics of a batch norm that overflow"
            raise self._not_finite(
                step_loss, f"gradient norm {norm:.4g}{what}", factor, micro_batches
            )
        if overflow:
            message = "step %d: gradients overflow at loss scale %.0f; step skipped, scale lowered"
            log.info(message, self.step + 1, scaler.get_scale())
        elif recipe.optimizer.clip:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), recipe.optimizer.clip, norm)

        # Update. The weights are the same on all processes.
        scaler.step(self.optimizer)
        if not is_finite(self.model.parameters()):
            raise self._not_finite(
                step_loss, "weights that overflow in the update", factor, micro_batches
            )
        scale = scaler.get_scale()
        scaler.update()
        self.precision.check_scale()
        self.optimizer.zero_grad(set_to_none=True)
        # A lowered scale means that the step was skipped.
        if self.ema and scaler.get_scale() >= scale:
            self.ema.update(self.model)
        return step_loss, recipe.optimizer.rate * factor

    def _restore(self, found: checkpoint.Checkpoint) -> None:
        """Load a checkpoint; raise DataError if it has other data or another network."""
        fix = f"start another run with --out and training.start_from={self.name} for its weights"
        self.data.check_record(found.state, self.name, fix)
        try:
            self.model.load_state_dict(found.tensors["model"])
            checkpoint.unpack_optimizer(self.optimizer, found.tensors["optimizer"])
            if self.ema:
                self.ema.load(found.tensors["ema"], found.state["ema_updates"])
        except (RuntimeError, KeyError, ValueError) as error:
            what = str(error).splitlines()[0][:120]
            raise DataError(
                f"{self.name}: its checkpoint does not fit this network ({what})", fix=fix
            ) from None
        if found.state["scaler"]:
            self.precision.scaler.load_state_dict(found.state["scaler"])
        self.step = found.state["step"]
        log.info("resumed after step %d", self.step)

    def _not_finite(
        self, loss: float, what: str, factor: float, micro_batches: tuple[setup.Batch, ...]
    ) -> NotFiniteError:
        samples = [
            self.data.train.key(int(index)) for _, _, draws in micro_batches for _, index in draws
        ]
        rate = self.recipe.optimizer.rate * factor
        return NotFiniteError(
            f"{self.name}: step {self.step + 1}: loss {loss:.4g}, {what} at rate {rate:.3g}, "
            f"samples {', '.join(samples)}; lower optimizer.rate, or set optimizer.clip"
        )


class Trainer(Learner):
    """Run in the folder `out`: all steps with their validations and checkpoints."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        device: torch.device,
        group: Ranks,
        command: str | None = None,
    ) -> None:
        found = checkpoint.newest(out / "checkpoints")
        super().__init__(recipe, device, group, str(out), found)
        self.out, self.command = out, command
        self.best: dict[str, Any] = found.state["best"] if found else {}
        # A finished run is not validated again: hashes of its files may be published.
        at_end = self.step == recipe.training.steps
        self.finished = at_end and validation.models_written(out, self.step)
        keep_bytes = int(found.state["metrics_bytes"]) if found else 0
        writes = group.first and not self.finished
        self.metrics = Metrics(out, keep_bytes=keep_bytes) if writes else None

    def fit(self) -> TrainResult:
        """Train until the last step; raise Stopped after a signal, with the step saved."""
        recipe, group, training = self.recipe, self.group, self.recipe.training
        if self.finished:
            return self._result()
        batches = setup.step_batches(
            recipe, self.data, self.model, first_step=self.step, rank=group.rank, world=group.world
        )
        with (
            stop_requests() as stop,
            bar("training", training.steps, self.step) as advance,
            closing(batches),
        ):
            while True:
                # A checkpoint precedes its validation, so a resumed run begins with the validation.
                if self.validation_due:
                    self.validate(stop)
                if self.step == training.steps:
                    return self._result()
                started = time.perf_counter()
                try:
                    # Several processes must stop after the same step.
                    with stop.idle() if group.world == 1 else nullcontext():
                        micro_batches = next(batches)
                except IdleSignal:
                    stopping = True
                else:
                    loaded = time.perf_counter()
                    loss, rate = self.update(micro_batches)
                    self.step += 1
                    self._log(loss, rate, started, loaded, advance)
                    stopping = group.any(bool(stop.code))
                if stopping or self.validation_due or self.step % training.checkpoint_every == 0:
                    self.save()
                if stopping:
                    what = f"{self.out}: stopped after step {self.step}, saved"
                    raise Stopped(f"{what}; continue with --resume", stop.code or 143)

    @property
    def validation_due(self) -> bool:
        """Whether this step ends with a validation; the last step always does."""
        every = self.recipe.training.validate_every
        return self.step > 0 and (
            self.step == self.recipe.training.steps or bool(every and self.step % every == 0)
        )

    def validate(self, stop: StopRequest) -> None:
        """Score the val split; write the last model, and the best model if this is the best."""
        model, labels, val = self.model, self.data.train.labels, self.data.val
        weights = self.ema.state if self.ema else model.state_dict()
        result: dict[str, Any] | None = None
        if val is not None:
            # Norms that are not synchronized differ by rank; rank 0's are kept.
            self.group.share(weights.values())
            predictor = validation.validation_predictor(model, weights, labels, self.device, stop)
            evaluation = validation.score(predictor, val, self.group)
            result = evaluation.result(command=self.command)
            result |= {"step": self.step, "precision_of_training": self.precision.name}
            miou, loss = result["miou"], result["loss"]
            log.info("step %d: val mIoU %.2f %%, loss %.4f", self.step, 100 * miou, loss)
            if self.metrics:
                self.metrics.write(self.step, val={"miou": miou, "loss": loss})
            if not self.best or miou > self.best["miou"]:
                self.best = result
        if self.group.first:
            notes = {"recipe": dump(self.recipe), "step": self.step}
            notes |= origin(self.device, self.command)
            best = result is None or result is self.best
            validation.save_models(self.out, model, labels, weights, notes, result, best=best)

    def save(self) -> None:
        """Write a checkpoint from which the run continues bit for bit."""
        if self.metrics is None:
            return
        tensors = {
            "model": self.model.state_dict(),
            "optimizer": checkpoint.pack_optimizer(self.optimizer),
        }
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

    def _log(
        self, loss: float, rate: float, started: float, loaded: float, advance: Advance
    ) -> None:
        seconds = time.perf_counter() - started
        speed, memory = self.recipe.training.batch / seconds, memory_mib(self.device)
        advance(1, f"loss {loss:.3f}, {speed:.1f} images/s, {memory:.0f} MiB")
        if self.metrics:
            waited = round((loaded - started) / seconds, 3)
            times = {"images_per_s": round(speed, 2), "waited": waited}
            self.metrics.write(self.step, loss=loss, rate=rate, memory_mib=round(memory), **times)

    def _result(self) -> TrainResult:
        if self.metrics:
            self.metrics.close()
        best = validation.best_result(self.out) if self.finished else self.best
        return TrainResult(self.out, self.step, best.get("miou"), best or None, self.group.first)
