"""What a run is made of, built from its recipe: data, network, loss, precision, loader."""

import logging
import multiprocessing
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
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
from seenet.training.losses import CrossEntropy, LossModel, class_weights
from seenet.training.own_loss import OwnLoss
from seenet.training.precision import Name, Precision, choose
from seenet.training.run import ignore_stop_signals, signals_blocked

log = logging.getLogger("seenet")

ONE_PROCESS = Ranks()

Batch = tuple[Tensor, Tensor, Tensor]
"""Images N x 3 x h x w, masks N x h x w, and (epoch, index) of each, N x 2."""


@dataclass(frozen=True)
class Data:
    """The splits of a run; `val` is None where the recipe validates on nothing."""

    train: Split
    val: Split | None

    @cached_property
    def record(self) -> dict[str, Any]:
        """Describe the data for a checkpoint, as JSON values.

        Classes, and of each split the number of its samples and a hash of their names.
        """
        splits = {"train": self.train, **({"val": self.val} if self.val is not None else {})}
        samples = {
            which: [len(split), digest(*map(split.key, range(len(split))))]
            for which, split in splits.items()
        }
        return {"classes": list(self.train.labels.classes), "samples": samples}

    def check_record(self, before: dict[str, Any], where: str, other: str) -> None:
        """Raise DataError where a checkpoint's record is of other data.

        Its weights, the order of its pictures and its scores would not fit.
        """
        had, have = before["classes"], self.record["classes"]
        if had != have:
            raise DataError(
                f"{where}: trained on {len(had)} classes ({', '.join(had)}), the data has {len(have)} ({', '.join(have)}); {other}"
            )
        # Checkpoints of earlier versions have none.
        for which, (count, names) in before.get("samples", {}).items():
            now, called = self.record["samples"].get(which, (0, ""))
            if called != names:
                raise DataError(
                    f"{where}: trained with {count} pictures in {which}, the data has {now}, "
                    f"or others by name; put them back as they were, or {other}"
                )


def open_data(recipe: Recipe) -> Data:
    """Open both splits and check every label before the first step; all processes must call it."""
    train = open_split(recipe.data, recipe.data.train)
    val = open_split(recipe.data, recipe.data.val) if recipe.data.val else None
    for split in (train, val):
        if isinstance(split, FileSplit):
            seen = {label for counts in check_split(split) for label in counts} - {
                split.labels.ignore
            }
            if not seen:
                raise DataError(f"{split.name}: {no_class(len(split), split.labels)}")
            absent = [name for label, name in enumerate(split.labels.classes) if label not in seen]
            if absent:
                log.warning(
                    "%s: no pixel of %s in its %d pictures",
                    split.name,
                    ", ".join(absent),
                    len(split),
                )
    return Data(train, val)


def build_model(
    recipe: Recipe, data: Data, device: torch.device, card: dict[str, Any] | None = None
) -> Segmenter:
    """Build the network with its starting weights, frozen as asked.

    Args:
        recipe: Its seed alone decides random weights.
        data: Its classes decide the head.
        device: Where the network goes.
        card: `card_of` the network of a run that is resumed. Its weights come from the checkpoint;
            the files it started from may have gone.
    """
    torch.manual_seed(recipe.seed)
    training = recipe.training
    if card:
        model = from_card(card, factory=recipe.model.factory)
    else:
        model = create_model(
            **recipe.model.model_dump(),
            num_classes=data.train.labels.num_classes,
            auxiliary=recipe.loss.auxiliary > 0,
        )
    if training.start_from and not card:
        report = fit_weights(
            model, load_model(training.start_from, factory=recipe.model.factory).model.state_dict()
        )
        if not report.loaded:
            raise DataError(
                f"{training.start_from}: no tensor fits this network; training.start_from wants the same variant and backbone"
            )
        log.info(
            "start_from %s: %d tensors loaded, %d not",
            training.start_from,
            report.loaded,
            len(report.skipped),
        )
        for line in report.skipped:
            log.info("  not loaded: %s", line)
    for warning in dead_taps(model, recipe.transforms.crop):
        others = "" if recipe.model.rates == "scaled" else ", model.rates=scaled"
        log.warning(
            "%s: a larger transforms.crop%s or a smaller model.output_stride feeds them",
            warning,
            others,
        )
    for module in _frozen(model, recipe):
        module.requires_grad_(False)
    model.backbone.recompute = training.activation_checkpointing
    if device.type == "cpu" and not training.compile:
        use_fast(model)
    return model.to(device).to(memory_format=memory_format(recipe))


def memory_format(recipe: Recipe) -> torch.memory_format:
    """Return the memory format that the recipe asks for."""
    return torch.channels_last if recipe.training.channels_last else torch.contiguous_format


def build_loss(recipe: Recipe, data: Data, model: Segmenter, device: torch.device) -> LossModel:
    """Build the module of network and loss, on the device."""
    frequency = (
        split_stats(data.train).median_frequency()
        if recipe.loss.class_weights == "median_frequency"
        else None
    )
    labels = data.train.labels
    weights = class_weights(recipe.loss, frequency, labels.num_classes)
    if recipe.loss.function is None:
        loss = CrossEntropy(recipe.loss, weights, labels.ignore)
        return LossModel(model, loss, recipe.loss.auxiliary).to(device)
    own = OwnLoss(recipe.loss, weights, labels.ignore, labels.num_classes)
    loss_model = LossModel(model, own, recipe.loss.auxiliary).to(device)
    own.try_out(device)
    return loss_model


def parallelize(
    loss_model: LossModel, device: torch.device, group: Ranks, *, compiled: bool
) -> Any:
    """Return what to call in training: with several processes DDP's module, compiled if asked."""
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


def set_train_mode(model: Segmenter, recipe: Recipe) -> None:
    """Set training mode; batch norms of frozen parts keep their statistics."""
    model.train()
    for module in _frozen(model, recipe):
        module.eval()


def _frozen(model: Segmenter, recipe: Recipe) -> list[nn.Module]:
    """List the modules whose parameters and statistics stay as they are."""
    training = recipe.training
    norms = model.backbone.norms() if training.freeze_norms else []
    stages = (
        model.backbone.stage_modules()[: training.freeze_stages] if training.freeze_stages else []
    )
    below = model.below() if isinstance(model, StageProbe) and training.freeze_below else []
    return [*norms, *(module for stage in stages for module in stage), *below]


def choose_precision(
    recipe: Recipe,
    model: Segmenter,
    device: torch.device,
    group: Ranks = ONE_PROCESS,
    *,
    before: Name | None = None,
) -> Precision:
    """Choose the precision to train in; the first rank chooses for all.

    `auto` measures on crops of the recipe's size. `before` is what a resumed run was trained in: it
    is not measured anew, but used only where this machine can be trusted with it.
    """
    names: list[Name] = ["fp32", "bf16", "fp16"]
    chosen = (
        _choose(recipe, model, device, before or recipe.training.precision).name
        if group.first
        else "fp32"
    )
    return Precision(names[group.from_first(names.index(chosen))], device)


def _choose(
    recipe: Recipe, model: Segmenter, device: torch.device, asked: Name | Literal["auto"]
) -> Precision:
    layout = memory_format(recipe)
    images = torch.zeros(
        min(recipe.training.batch, 4), 3, *recipe.transforms.crop, device=device
    ).contiguous(memory_format=layout)
    return choose(asked, device, layout, model, images)


def step_batches(
    recipe: Recipe, data: Data, model: Segmenter, *, first_step: int, rank: int, world: int
) -> Generator[tuple[Batch, ...]]:
    """Load the micro-batches of this rank, step by step from `first_step`.

    Which images those are is arithmetic: a resumed run replays nothing.
    """
    training = recipe.training
    normalization, labels = model.normalization, data.train.labels
    transform = JointTransform(
        recipe.transforms,
        normalization.mean,
        normalization.std,
        labels.ignore,
        classes=labels.num_classes,
    )
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
        worker_init_fn=ignore_stop_signals,
    )
    return _step_batches(loader, training.accumulate)


def _start_loader(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """Start the loader's workers; raise LostError where one ends before it began."""
    try:
        return iter(loader)
    except (ConnectionError, EOFError):
        # Not forked, it is sent what it needs when it runs.
        raise LostError(
            "a loader worker ended before it began; see its own message, or set training.workers=0"
        ) from None


def _step_batches(loader: DataLoader[Batch], accumulate: int) -> Generator[tuple[Batch, ...]]:
    """Yield the micro-batches step by step; leave no worker behind, however it ends.

    A worker's error is raised as it was there: torch puts the worker's traceback around it, whose
    last line is `type: message`.
    """
    batches: Iterator[Batch] = iter(())
    workers: list[Any] = []
    try:
        with signals_blocked():
            others = multiprocessing.active_children()
            batches = _start_loader(loader)
            workers = [
                process for process in multiprocessing.active_children() if process not in others
            ]
        yield from zip(*[batches] * accumulate, strict=True)
    except SeenetError as error:
        _, _, message = str(error).strip().rpartition("\n")[2].partition(": ")
        raise (type(error)(message) if "\n" in str(error) else error) from None
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        what = " ".join(str(error).split())[:120]
        raise LostError(
            f"{what}; perhaps memory is short: use fewer training.workers, and go on with --resume"
        ) from None
    finally:
        # Its own way waits some seconds, and then for ever for workers that hang: they ignore the
        # signal that it sends.
        getattr(batches, "_shutdown_workers", lambda: None)()
        for worker in workers:
            worker.kill()
