"""The training loop."""

import logging
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from seenet import __version__
from seenet.core.device import choose_device
from seenet.core.errors import Stopped
from seenet.core.progress import Advance, bar
from seenet.core.recipe_files import dump
from seenet.core.settings import Recipe
from seenet.distributed import Ranks, init_process_group
from seenet.evaluation.evaluator import Evaluation
from seenet.model.files import card_of
from seenet.training import checkpoint
from seenet.training.learner import Learner
from seenet.training.logging import Metrics, memory_mib
from seenet.training.run import open_run, origin
from seenet.training.setup import step_batches
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
    with init_process_group(where, timedelta(minutes=recipe.training.timeout_minutes)) as group:
        return train_in(group, recipe, out, where, resume=resume, command=command)


def train_in(group: Ranks, recipe: Recipe, out: Path, device: torch.device, *, resume: bool, command: str | None) -> TrainResult:
    """As `train`, among processes that have met already."""
    with open_run(out, recipe, resume=resume, rank=group.rank):
        group.check_batch(recipe.training.batch, recipe.training.accumulate)
        return Trainer(recipe, out, device, group, command).fit()


class Trainer(Learner):
    """A run in memory: what is trained, how far it is, how good it was."""

    def __init__(self, recipe: Recipe, out: Path, device: torch.device, group: Ranks, command: str | None = None) -> None:
        found = checkpoint.newest(out / "checkpoints")
        super().__init__(recipe, device, group, str(out), found)
        self.out, self.command = out, command
        self.best: dict[str, Any] = found.state["best"] if found else {}
        # A finished run is not validated again: its files are the ones whose hashes were published.
        self.finished = self.step == recipe.training.steps and is_kept(out, self.step)
        keep_bytes = int(found.state["metrics_bytes"]) if found else 0
        self.metrics = Metrics(out, keep_bytes=keep_bytes) if group.first and not self.finished else None

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
