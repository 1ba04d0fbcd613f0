"""The settings of a run, and their validation."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from seenet.core.errors import nearest

Kind = Literal["camvid", "camvid-drives", "voc", "coco", "cityscapes", "folder", "shapes"]


class Section(BaseModel):
    """Base of settings: immutable, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# Checked before pydantic does, which says of a union every member, and of none the nearest name.
def _known_kind(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"found {value!r}, expected a name")
    if value not in get_args(Kind) and ":" not in value:
        hint = nearest(value, get_args(Kind))
        raise ValueError(f"found {value!r}; {hint}, or package.module:callable of yours")
    return value


class DataSettings(Section):
    """The data set, and its splits for training and validation."""

    kind: Annotated[Kind | Annotated[str, Field(pattern=":")], BeforeValidator(_known_kind)]
    """Data set; `folder` is your own, described by one YAML (`seenet data init`). Or
    `package.module:callable` of yours, called as f(settings, split), that opens a split of it."""
    root: Path | None = None
    """Folder of the data set (for `folder`: its YAML file, or the folder with `seenet.yaml`); none
    for `shapes`, optional for a callable of yours."""
    train: str = "train"
    """Split to train on, by the data set's own names (`train`, `trainval`, `trainaug`, ...); for
    `voc` also several (`trainaug+val`)."""
    val: str | None = "val"
    """Split to validate on; null: no validation."""
    hold_out: Literal["0001TP", "0006R0", "0016E5"] | None = None
    """`camvid-drives` only: the drive for validation."""
    ids: Literal["labelIds", "trainIds"] = "labelIds"
    """`cityscapes` only: the ids in the mask files."""
    overlap: Literal["ignore", "smallest-on-top"] = "ignore"
    """`coco` only: label of pixels of two classes."""
    size: int = Field(default=160, ge=42)
    """`shapes` only: side of the drawn square, pixels; below 42 a ring 3 pixels thick may have no
    hole."""
    count: int = Field(default=2000, ge=1)
    """`shapes` only: scenes in the train split; val has a tenth, at least 50."""

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if self.kind == "camvid-drives" and self.hold_out is None:
            raise ValueError("hold_out is missing: camvid-drives needs 0001TP, 0006R0 or 0016E5")
        if self.kind != "camvid-drives" and self.hold_out is not None:
            raise ValueError(f"hold_out belongs to camvid-drives, not to {self.kind}")
        if self.kind != "shapes" and ":" not in self.kind and self.root is None:
            raise ValueError(
                "root is missing: give the folder of the data, "
                f"for example data.root=data/{self.kind}"
            )
        return self


class ModelSettings(Section):
    """The network: the options of `seenet.create_model`, described there."""

    variant: str = "seenet"
    backbone: str = "resnet50"
    weights: str | None = None
    """Backbone weights: null (random), `imagenet` (timm's), a file, or a SeENet model, whose
    backbone is used."""
    p_out: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    refine_stride: Literal[4, 8] = 4
    width: int = Field(default=128, ge=1)
    local_conv: Literal["full", "depthwise"] = "full"
    rates: Literal["scaled", "fixed"] = "scaled"
    output_stride: Literal[8, 16, 32] = 8
    probe: Literal["B2", "EB2", "B3", "B3+B2", "B3+EB2"] | None = None
    """A small head on these stages of a SeENet model (`weights`) instead of the variant's own;
    `seenet probe` trains it."""
    factory: str | None = None
    """Your own `package.module:callable`, called as f(num_classes=K), that makes the network;
    `variant` is then `factory`."""

    @model_validator(mode="before")
    @classmethod
    def _factory_is_the_variant(cls, values: Any) -> Any:
        if not isinstance(values, dict) or (values.get("factory") is None) == (
            values.get("variant") != "factory"
        ):
            return values
        if values.get("factory") is None:
            raise ValueError(
                "variant is factory, but factory is missing: give package.module:callable"
            )
        if "variant" in values:
            raise ValueError(
                f"variant is {values['variant']}, but factory makes the network; "
                "leave variant out or set it to factory"
            )
        return {**values, "variant": "factory"}


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


class TransformSettings(Section):
    """Random transforms of an image and its mask; they depend on seed, epoch and index alone."""

    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the uniform scale."""
    crop: Annotated[tuple[int, int], BeforeValidator(_pair)]
    """Height and width of the crop, pixels; one number for a square. Smaller pictures are padded
    with zeros, their labels with the ignored id."""
    rotation: float = Field(default=0, ge=0, le=180)
    """Largest angle, degrees, in either direction."""
    jitter: float = Field(default=0, ge=0, le=1)
    """Strength of colour jitter: brightness, contrast and saturation by 1 +- this, hue by a quarter
    of it (at most 0.5)."""
    custom: str | None = None
    """Your own `package.module:callable`, called first as f(image=, mask=) on uint8 arrays; returns
    a dict with both."""

    @model_validator(mode="after")
    def _sane(self) -> Self:
        low, high = self.scale
        if not 0 < low <= high <= 16:
            raise ValueError(f"scale is {low} to {high}; expected 0 < low <= high <= 16")
        if min(self.crop) < 1:
            raise ValueError(f"crop is {self.crop}; expected at least 1 pixel a side")
        return self


class LossSettings(Section):
    """Cross entropy on the upsampled logits, over all valid pixels of the step."""

    function: str | None = None
    """`package.module:callable` of yours, called as f(num_classes=K, ignore=I), that makes the
    function to take in place of cross entropy: (N x K x H x W scores, N x H x W labels) -> the
    loss of each pixel, N x H x W. Validation still tells cross entropy."""
    class_weights: Literal["median_frequency"] | list[Annotated[float, Field(ge=0)]] | None = None
    """Weight of each class; `median_frequency` counts the train split."""
    weight_power: float = Field(default=1.0, ge=0, le=1)
    """Exponent of the class weights: 0.5 softens them, 0 switches them off."""
    auxiliary: float = Field(default=0, ge=0)
    """Weight of an auxiliary head on B3; 0: none."""
    ohem: Annotated[float, Field(gt=0, le=1)] | None = None
    """Online hard examples: only pixels whose true class has a probability below this count, ..."""
    ohem_keep: float = Field(default=0.1, ge=0, le=1)
    """... and always at least this share of an image's valid pixels, the hardest."""

    @model_validator(mode="after")
    def _fits_function(self) -> Self:
        if self.function is not None and self.ohem is not None:
            raise ValueError(
                "ohem ranks pixels by cross entropy, function replaces it; set one of them to null"
            )
        return self


class OptimizerSettings(Section):
    """The optimizer and its learning rate."""

    kind: Literal["sgd", "adamw"] = "sgd"
    rate: float = Field(default=0.001, gt=0, le=1000)
    """Learning rate of the backbone at the first step after warm-up."""
    head_factor: float = Field(default=1, gt=0)
    """The head's learning rate over the backbone's."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD only."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.999,
    )
    """AdamW only."""
    weight_decay: float = Field(default=1e-4, ge=0)
    decay_norms: bool = True
    """Whether norms and biases decay too."""
    power: float = Field(default=0.9, ge=0)
    """rate * (1 - step / steps) ** power"""
    warmup: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient of all parameters together."""


class TrainingSettings(Section):
    """Length, batch, precision, validation and checkpoints of a run."""

    steps: int = Field(ge=1)
    """Optimizer steps."""
    batch: int = Field(ge=1)
    """Images per step, over all processes and micro-batches."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches per step and process."""
    workers: int = Field(default=1, ge=0)
    """Loader processes; their number does not change the samples."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """`auto` measures bf16 against fp32 on this machine and checks its gradients first."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential moving average of the weights, which is then validated and saved."""
    freeze_norms: bool = False
    """Backbone batch norms keep their statistics and parameters."""
    freeze_stages: int = Field(default=0, ge=0, le=4)
    """The first stages of the backbone (1: stem and B1) keep their weights."""
    freeze_below: bool = False
    """`model.probe` only: everything below the probe keeps its weights and statistics."""
    activation_checkpointing: bool = False
    """Recompute the backbone's activations in the backward pass: less memory, more time."""
    compile: bool = False
    channels_last: bool = True
    validate_every: int = Field(default=0, ge=0)
    """Steps between validations; 0: only at the end."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints (the last step always has one)."""
    keep: int = Field(default=2, ge=1)
    """Number of checkpoints kept besides the best."""
    timeout_minutes: float = Field(default=10, gt=0)
    """Time-out for the other processes, minutes."""
    start_from: str | None = None
    """A SeENet model whose weights are loaded where they fit, the head's too; others are listed."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch % self.accumulate:
            raise ValueError(
                f"batch {self.batch} does not divide into {self.accumulate} micro-batches"
            )
        return self


class Recipe(Section):
    """A whole run."""

    description: str = ""
    """Score, time and machine, or "not run"."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataSettings
    model: ModelSettings = ModelSettings()
    transforms: TransformSettings
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    training: TrainingSettings
    stages: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")], dict[str, Any]] = {}
    """Runs by name, trained in this order. Each is the rest of this file with its own sections
    merged over it, and starts from the last weights of the one before. Commands about one training
    (`ablate`, `data show`) use the rest of the file alone."""

    @model_validator(mode="after")
    def _freezes_below_a_probe(self) -> Self:
        if self.training.freeze_below and self.model.probe is None:
            raise ValueError(
                "training.freeze_below belongs to model.probe, which is null; "
                "see training.freeze_stages"
            )
        return self
