"""The parts of a run, built from its recipe: data, network, loss, precision, loader."""

import logging
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from seenet.core.errors import DataError, LostError, SeenetError
from seenet.core.files import digest
from seenet.core.settings import Recipe, TrainingSettings
from seenet.data import Split, open_split
from seenet.data.check.scan import check_split, split_stats
from seenet.data.check.stats import no_class
from seenet.data.sampling import StepSampler, TrainingSet
from seenet.data.split import FileSplit, normalization_of, reader_of
from seenet.data.transforms import JointTransform
from seenet.distributed import Ranks
from seenet.model import Segmenter, StageProbe, create_model
from seenet.model.fast import use_fast
from seenet.model.files import fit_weights, from_card, load_model
from seenet.model.segmenter import Normalization
from seenet.model.summary import dead_taps
from seenet.training.losses import CrossEntropy, LossModel, OwnLoss, class_weights
from seenet.training.precision import Name, Precision, choose
from seenet.training.run import ignore_stop_signals, signals_blocked

log = logging.getLogger("seenet")

Batch = tuple[Tensor, Tensor, Tensor]
"""Images N x C x h x w, masks N x h x w, and (epoch, index) of each, N x 2."""


@dataclass(frozen=True)
class Data:
    """The splits of a run; `val` is None if the recipe has no validation split."""

    train: Split
    val: Split | None

    @cached_property
    def record(self) -> dict[str, Any]:
        """Describe the data for a checkpoint, as JSON values.

        Classes, and for each split the number of its samples and a hash of their names.
        """
        samples = {
            which: [len(split), digest(*map(split.key, range(len(split))))]
            for which, split in (("train", self.train), ("val", self.val))
            if split is not None
        }
        return {"classes": list(self.train.labels.classes), "samples": samples}

    def check_record(self, before: dict[str, Any], where: str, fix: str) -> None:
        """Raise DataError if a checkpoint's record describes other data.

        Its weights, the order of its images and its scores would not fit.
        """
        had, have = before["classes"], self.record["classes"]
        if had != have:
            raise DataError(
                f"{where}: trained on {len(had)} classes ({', '.join(had)}), "
                f"the data has {len(have)} ({', '.join(have)}); {fix}"
            )
        # Checkpoints of earlier versions have no samples.
        for which, (count, names_hash) in before.get("samples", {}).items():
            count_now, hash_now = self.record["samples"].get(which, (0, ""))
            if hash_now != names_hash:
                raise DataError(
                    f"{where}: trained with {count} images in {which}, the data has {count_now}, "
                    f"or their names differ; restore them, or {fix}"
                )


def open_data(recipe: Recipe) -> Data:
    """Open both splits and check every label before the first step; collective."""
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
                    "%s: no pixel of %s in its %d images",
                    split.name,
                    ", ".join(absent),
                    len(split),
                )
    return Data(train, val)


def build_model(
    recipe: Recipe, data: Data, device: torch.device, card: dict[str, Any] | None = None
) -> Segmenter:
    """Build the network with its initial weights, and freeze what the recipe freezes.

    Args:
        recipe: Random weights depend on its seed only.
        data: Its classes give the channels of the head.
        device: The device of the network.
        card: `card_of` the network of a run to resume. The weights come from its checkpoint, so
            the files from which it started are not needed.
    """
    torch.manual_seed(recipe.seed)
    training = recipe.training
    if card:
        model = from_card(card, factory=recipe.model.factory)
    else:
        model = create_model(
            **recipe.model.model_dump(),
            num_classes=data.train.labels.num_classes,
            in_channels=reader_of(data.train).count,
            auxiliary=recipe.loss.auxiliary > 0,
        )
        model.reader = reader_of(data.train)
        if own := normalization_of(data.train):
            model.normalization = Normalization(*own)
    if training.start_from and not card:
        report = fit_weights(
            model, load_model(training.start_from, factory=recipe.model.factory).model.state_dict()
        )
        if not report.loaded:
            raise DataError(
                f"{training.start_from}: no tensor fits this network; "
                "training.start_from needs the same variant and backbone"
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
    """Return the memory format of the recipe."""
    return torch.channels_last if recipe.training.channels_last else torch.contiguous_format


def build_loss(recipe: Recipe, data: Data, model: Segmenter, device: torch.device) -> LossModel:
    """Build the module of network and loss on the device."""
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
    """Wrap the module in DDP if there are several processes, and compile it if asked."""
    module: nn.Module = loss_model
    if group.world > 1:
        cuda = device.type == "cuda"
        if cuda:
            # timm's converter: torch's would drop the activations inside timm's norms.
            module = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        module = DistributedDataParallel(module, device_ids=[device.index] if cuda else None)
    if compiled:
        module.compile()
    return module


def warn_small_batch(training: TrainingSettings, world: int) -> None:
    """Log a warning if batch norm sees few images per process."""
    per_process = training.batch // world // training.accumulate
    if per_process < 4 and not training.freeze_norms:
        log.warning(
            "batch norm sees %d image(s) per process, its statistics are imprecise; "
            "use a larger batch or training.freeze_norms=true",
            per_process,
        )


def set_train_mode(model: Segmenter, recipe: Recipe) -> None:
    """Set training mode; batch norms of frozen parts keep their statistics."""
    model.train()
    for module in _frozen(model, recipe):
        module.eval()


def _frozen(model: Segmenter, recipe: Recipe) -> list[nn.Module]:
    """List the modules whose parameters and statistics do not change."""
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
    group: Ranks,
    before: Name | None,
) -> Precision:
    """Choose the training precision; rank 0 chooses for all.

    `auto` measures on crops of the recipe's size. `before` is the precision of a resumed run: it is
    not measured again, but used only if gradients on this machine can be trusted in it.
    """
    names: list[Name] = ["fp32", "bf16", "fp16"]
    chosen: Name = "fp32"
    if group.first:
        layout, count = memory_format(recipe), min(recipe.training.batch, 4)
        size = (count, len(model.normalization.mean), *recipe.transforms.crop)
        images = torch.zeros(size).to(device, memory_format=layout)
        setting = before or recipe.training.precision
        chosen = choose(setting, device, layout, model, images).name
    return Precision(names[group.from_first(names.index(chosen))], device)


def step_batches(
    recipe: Recipe, data: Data, model: Segmenter, *, first_step: int, rank: int, world: int
) -> Generator[tuple[Batch, ...]]:
    """Yield the micro-batches of this rank for each step from `first_step`.

    Their samples are computed from the step, so a resumed run replays nothing.
    """
    training, labels = recipe.training, data.train.labels
    mean, std = model.normalization.mean, model.normalization.std
    transform = JointTransform(
        recipe.transforms, mean, std, labels.ignore, classes=labels.num_classes
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
    return _grouped(loader, training.accumulate)


def _grouped(loader: DataLoader[Batch], accumulate: int) -> Generator[tuple[Batch, ...]]:
    """Yield the loader's batches in groups of `accumulate`, and end all workers at the end.

    A worker's SeenetError is raised with its own message: torch wraps it in the worker's traceback,
    whose last line is `type: message`.

    Raises:
        LostError: a worker was killed, or ended before it began.
        ValueError: the last group is incomplete.
    """
    batches: Any = iter(())
    try:
        with signals_blocked():
            batches = iter(loader)
        yield from zip(*[batches] * accumulate, strict=True)
    except (ConnectionError, EOFError) as error:
        # A spawned worker, not a forked one, that ended before it received its data.
        raise LostError(
            "a loader worker ended; see its own message, or set training.workers=0"
        ) from error
    except SeenetError as error:
        _, _, message = str(error).strip().rpartition("\n")[2].partition(": ")
        raise (type(error)(message) if "\n" in str(error) else error) from None
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        what = " ".join(str(error).split())[:120]
        raise LostError(
            f"{what}; memory may be short: use fewer training.workers, and continue with --resume"
        ) from None
    finally:
        # torch's own shutdown sends SIGTERM, which workers ignore, and then waits forever for one
        # that hangs.
        if hasattr(batches, "_workers"):
            batches._shutdown_workers()
            for worker in batches._workers:
                worker.kill()
