"""Everything a run is made of, built from its recipe: data, network, optimizer, loader."""

import logging
import multiprocessing
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from seenet.core.errors import DataError, LostError, SeenetError
from seenet.core.files import digest
from seenet.core.settings import Recipe
from seenet.data import Split, open_split
from seenet.data.check.scan import check_split, split_stats
from seenet.data.check.stats import no_class
from seenet.data.sampling import StepSampler, TrainingSet
from seenet.data.split import FileSplit
from seenet.data.transforms import JointTransform
from seenet.distributed import Ranks
from seenet.model import Segmenter, StageProbe, create_model
from seenet.model.fast import use_fast
from seenet.model.files import fit_weights, from_card, load_model
from seenet.model.summary import dead_taps
from seenet.training.losses import LossModel, class_weights
from seenet.training.precision import Name, Precision, choose
from seenet.training.signals import held_back, ignore_in_worker

log = logging.getLogger("seenet")

ALONE = Ranks()

Batch = tuple[Tensor, Tensor, Tensor]
"""images N x 3 x h x w, masks N x h x w, and (epoch, index) of each, N x 2"""


@dataclass(frozen=True)
class Data:
    """The splits of a run; val is None where nothing may look at a score."""

    train: Split
    val: Split | None

    @cached_property
    def record(self) -> dict[str, Any]:
        """What a checkpoint says of it, as JSON values: classes, and of each split how many samples it has and a hash of their names."""
        splits = {"train": self.train, **({"val": self.val} if self.val is not None else {})}
        samples = {which: [len(split), digest(*map(split.key, range(len(split))))] for which, split in splits.items()}
        return {"classes": list(self.train.labels.classes), "samples": samples}

    def check_record(self, before: dict[str, Any], where: str, other: str) -> None:
        """DataError where a checkpoint's record is of other data: its weights, the order of its pictures and its scores would not fit."""
        had, have = before["classes"], self.record["classes"]
        if had != have:
            raise DataError(
                f"{where}: trained on {len(had)} classes ({', '.join(had)}), the data has {len(have)} ({', '.join(have)}); {other}"
            )
        # Checkpoints of earlier versions have none.
        for which, (count, names) in before.get("samples", {}).items():
            now, called = self.record["samples"].get(which, (0, ""))
            if called != names:
                what = f"{where}: trained with {count} pictures in {which}, the data has {now}, or others by name"
                raise DataError(f"{what}; put them back as they were, or {other}")


def open_data(recipe: Recipe) -> Data:
    """Open both splits and check every label before the first step; every process of a run must call this."""
    train = open_split(recipe.data, recipe.data.train)
    val = open_split(recipe.data, recipe.data.val) if recipe.data.val else None
    for split in (train, val):
        if isinstance(split, FileSplit):
            seen = {label for counts in check_split(split) for label in counts} - {split.labels.ignore}
            if not seen:
                raise DataError(f"{split.name}: {no_class(len(split), split.labels)}")
            absent = [name for label, name in enumerate(split.labels.classes) if label not in seen]
            if absent:
                log.warning("%s: no pixel of %s in its %d pictures", split.name, ", ".join(absent), len(split))
    return Data(train, val)


def build_model(recipe: Recipe, data: Data, device: torch.device, card: dict[str, Any] | None = None) -> Segmenter:
    """The network with its starting weights, frozen as asked; weights depend on the seed alone.

    `card` (`card_of`) is that of a run that goes on: its weights are the checkpoint's, the files it started from may have gone.
    """
    torch.manual_seed(recipe.seed)
    training = recipe.training
    if card and not recipe.model.factory:
        model = from_card(card)
    else:
        model = create_model(**recipe.model.model_dump(), num_classes=data.train.labels.num_classes, auxiliary=recipe.loss.auxiliary > 0)
    if training.start_from and not card:
        report = fit_weights(model, load_model(training.start_from, factory=recipe.model.factory).model.state_dict())
        if not report.loaded:
            raise DataError(f"{training.start_from}: no tensor fits this network; training.start_from wants the same variant and backbone")
        log.info("start_from %s: %d tensors loaded, %d not", training.start_from, report.loaded, len(report.skipped))
        for line in report.skipped:
            log.info("  not loaded: %s", line)
    for warning in dead_taps(model, recipe.transforms.crop):
        others = "" if recipe.model.rates == "scaled" else ", model.rates=scaled"
        log.warning("%s: a larger transforms.crop%s or a smaller model.output_stride feeds them", warning, others)
    for module in _frozen(model, recipe):
        module.requires_grad_(False)
    model.backbone.recompute = training.activation_checkpointing
    if device.type == "cpu" and not training.compile:
        use_fast(model)
    return model.to(device).to(memory_format=memory_format(recipe))


def memory_format(recipe: Recipe) -> torch.memory_format:
    return torch.channels_last if recipe.training.channels_last else torch.contiguous_format


def build_loss(recipe: Recipe, data: Data, model: Segmenter, device: torch.device) -> LossModel:
    """Network and loss together, on the device."""
    frequency = split_stats(data.train).median_frequency() if recipe.loss.class_weights == "median_frequency" else None
    weights = class_weights(recipe.loss, frequency, data.train.labels.num_classes)
    return LossModel(model, recipe.loss, weights, data.train.labels.ignore).to(device)


def set_train_mode(model: Segmenter, recipe: Recipe) -> None:
    """Training mode; batch norms of frozen parts keep their statistics."""
    model.train()
    for module in _frozen(model, recipe):
        module.eval()


def _frozen(model: Segmenter, recipe: Recipe) -> list[nn.Module]:
    """Modules whose parameters and statistics stay as they are."""
    training = recipe.training
    norms = model.backbone.norms() if training.freeze_norms else []
    stages = model.backbone.stage_modules()[: training.freeze_stages] if training.freeze_stages else []
    below = model.below() if isinstance(model, StageProbe) and training.freeze_below else []
    return [*norms, *(module for stage in stages for module in stage), *below]


def choose_precision(
    recipe: Recipe, model: Segmenter, device: torch.device, group: Ranks = ALONE, *, before: Name | None = None
) -> Precision:
    """The precision to train in, measured where the recipe says `auto` on crops of its own size; the first rank chooses for all.

    `before` is what a resumed run was trained in: not measured anew, but only used where this machine can be trusted with it.
    """
    names: list[Name] = ["fp32", "bf16", "fp16"]
    chosen = _choose(recipe, model, device, before or recipe.training.precision).name if group.first else "fp32"
    return Precision(names[group.from_first(names.index(chosen))], device)


def _choose(recipe: Recipe, model: Segmenter, device: torch.device, asked: Name | Literal["auto"]) -> Precision:
    layout = memory_format(recipe)
    images = torch.zeros(min(recipe.training.batch, 4), 3, *recipe.transforms.crop, device=device).contiguous(memory_format=layout)
    return choose(asked, device, layout, model, images)


def step_batches(recipe: Recipe, data: Data, model: Segmenter, *, first_step: int, rank: int, world: int) -> Generator[tuple[Batch, ...]]:
    """The micro-batches of this rank, step by step from `first_step`; which images those are is arithmetic, nothing is replayed."""
    training = recipe.training
    normalization, labels = model.normalization, data.train.labels
    transform = JointTransform(recipe.transforms, normalization.mean, normalization.std, labels.ignore, classes=labels.num_classes)
    sampler = StepSampler(
        len(data.train),
        training.batch,
        recipe.seed,
        first_step,
        training.steps,
        rank=rank,
        world=world,
        accumulate=training.accumulate,
    )
    loader = DataLoader(
        TrainingSet(data.train, transform, recipe.seed),
        batch_sampler=sampler,
        num_workers=training.workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if training.workers else None,
        worker_init_fn=ignore_in_worker,
    )
    return _steps(loader, training.accumulate)


def _started(loader: DataLoader[Batch]) -> Iterator[Batch]:
    try:
        return iter(loader)
    except (ConnectionError, EOFError):
        # Not forked, it is sent what it needs when it runs.
        raise LostError("a loader worker ended before it began; see what it says itself, or set training.workers=0") from None


def _steps(loader: DataLoader[Batch], accumulate: int) -> Generator[tuple[Batch, ...]]:
    """Micro-batches, step by step. A worker's error is raised as it was there: torch puts the worker's traceback around it, whose last line
    is `type: message`. However it ends, no worker is left.
    """
    batches: Iterator[Batch] = iter(())
    workers: list[Any] = []
    try:
        with held_back():
            others = multiprocessing.active_children()
            batches = _started(loader)
            workers = [process for process in multiprocessing.active_children() if process not in others]
        yield from zip(*[batches] * accumulate, strict=True)
    except SeenetError as error:
        _, _, message = str(error).strip().rpartition("\n")[2].partition(": ")
        raise (type(error)(message) if "\n" in str(error) else error) from None
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        what = " ".join(str(error).split())[:120]
        raise LostError(f"{what}; perhaps memory is short: use fewer training.workers, and go on with --resume") from None
    finally:
        # Its own way waits some seconds, and then for ever for workers that hang: they ignore the signal that it sends.
        getattr(batches, "_shutdown_workers", lambda: None)()
        for worker in workers:
            worker.kill()
