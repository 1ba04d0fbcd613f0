"""The training loop."""

import logging
import math
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

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
from seenet.training.losses import LossModel
from seenet.training.optim import EMA, build_optimizer, rate_factor, set_rate
from seenet.training.run import StopRequest, Waited, open_run, origin, stop_requests
from seenet.training.setup import (
    Batch,
    build_loss,
    build_model,
    choose_precision,
    memory_format,
    open_data,
    set_train_mode,
    step_batches,
)
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
        self.loss_model = build_loss(recipe, self.data, self.model, device)
        self.optimizer = build_optimizer(self.model, recipe.optimizer)
        self.ema = EMA(self.model, recipe.training.ema) if recipe.training.ema else None
        self.step = 0
        set_train_mode(self.model, recipe)
        self.precision = choose_precision(recipe, self.model, device, group, before=found.state["precision"] if found else None)
        if found:
            self._restore(found)
        self._check_shared()
        self.parallel = wrap(self.loss_model, device, group, compiled=recipe.training.compile)
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
        torch.manual_seed((recipe.seed * 1_000_003 + self.step) * 4099 + group.rank)
        set_train_mode(self.model, recipe)
        factor = rate_factor(self.step, recipe.training.steps, recipe.optimizer)
        set_rate(self.optimizer, factor)

        # Forward and backward. The loss is a mean over the whole step: all micro-batches, all processes.
        weight = group.sum(torch.stack([self.loss_model.loss.weight(masks) for _, masks, _ in micro_batches]).sum())
        # At least one pixel; class weights may sum to less than that and stay what they are.
        weight = (weight if weight > 0 else torch.ones_like(weight)).to(self.device, torch.float32)
        total = torch.zeros((), dtype=torch.float64)
        for index, (images, masks, _) in enumerate(micro_batches):
            images = images.to(self.device, memory_format=memory_format(recipe), non_blocking=True)
            masks = masks.to(self.device, non_blocking=True)
            with self._synchronized(last=index == len(micro_batches) - 1):
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
        # A variance that overflows makes its norm's output 0, with which loss and gradients are finite.
        statistics = is_finite(value for name, value in self.model.named_buffers() if is_statistic(name))
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

    def _synchronized(self, *, last: bool) -> AbstractContextManager[object]:
        """Sum gradients over processes in the last backward pass of a step alone."""
        if isinstance(self.parallel, DistributedDataParallel) and not last:
            return self.parallel.no_sync()
        return nullcontext()

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

    def _not_finite(self, loss: float, what: str, factor: float, micro_batches: tuple[Batch, ...]) -> NotFiniteError:
        samples = [self.data.train.key(int(index)) for _, _, draws in micro_batches for _, index in draws]
        rate = self.recipe.optimizer.rate * factor
        return NotFiniteError(
            f"{self.name}: step {self.step + 1}: loss {loss:.4g}, {what} at rate {rate:.3g}, "
            f"samples {', '.join(samples)}; lower optimizer.rate, or set optimizer.clip"
        )


def is_finite(tensors: Iterable[Tensor]) -> bool:
    """Report whether all numbers are finite; the largest of them tells."""
    some = [tensor.detach() for tensor in tensors if tensor.numel()]
    return not some or bool(torch.isfinite(nn.utils.get_total_norm(some, math.inf)))


def is_statistic(name: str) -> bool:
    """Report whether a buffer is a batch norm's running mean or variance."""
    return name.rpartition(".")[2].startswith("running_")


def wrap(loss_model: LossModel, device: torch.device, group: Ranks, *, compiled: bool) -> nn.Module:
    """Return the module to call in training: over several processes DDP's, compiled where asked."""
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
