"""Load starting weights, and log what was loaded, what was not, and what starts at random."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import timm
from safetensors import SafetensorError, safe_open
from timm.models import adapt_input_conv
from torch import Tensor, nn

from seenet.core.errors import DataError, UsageError, nearest
from seenet.core.files import find_model
from seenet.model.backbone import Backbone
from seenet.model.segmenter import Normalization

log = logging.getLogger("seenet")

RESNET_V1 = "resnet50 v1"


@dataclass(frozen=True)
class FitReport:
    """The number of tensors taken, and for each other a line that says why not."""

    loaded: int
    skipped: list[str]


def prepare_backbone(
    name: str,
    weights: str | None,
    *,
    output_stride: int,
    in_channels: int,
    stride_on: str,
    levels: int = 4,
) -> tuple[Backbone, Normalization, str]:
    """Build the backbone with its starting weights.

    Returns:
        The backbone, its normalisation and where its blocks stride ("conv1" or "conv2").
    """
    state, metadata = _read_start(weights)
    if metadata.get("architecture") == RESNET_V1:
        stride_on = "conv1"
    backbone = Backbone(
        name,
        output_stride=output_stride,
        in_channels=in_channels,
        stride_on=stride_on,
        levels=levels,
    )
    if weights is None:
        log.info("backbone %s: random weights", name)
    else:
        _load_start(backbone, weights, state, in_channels)
    return backbone, _normalization(name, metadata, in_channels), stride_on


def fill_backbone(backbone: Backbone, weights: str | None, in_channels: int) -> Normalization:
    """Load starting weights into a backbone that is there already, and return its normalisation.

    Without `weights` it keeps those that it has.

    Raises:
        UsageError: Weights whose blocks stride elsewhere than the backbone's.
        DataError: Weights that are not there or do not fit.
    """
    state, metadata = _read_start(weights)
    if metadata.get("architecture") == RESNET_V1 and backbone.stride_on != "conv1":
        raise UsageError(
            f"weights={weights}: of a ResNet v1, whose blocks stride on their first convolution; "
            f"make the network with Backbone({backbone.name!r}, stride_on='conv1')"
        )
    if weights is not None:
        _load_start(backbone, weights, state, in_channels)
    return _normalization(backbone.name, metadata, in_channels)


def _read_start(weights: str | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of starting weights; empty where no file is named."""
    return ({}, {}) if weights in (None, "imagenet") else read_backbone_weights(str(weights))


def _load_start(
    backbone: Backbone, weights: str, state: dict[str, Tensor], in_channels: int
) -> None:
    if weights == "imagenet":
        _load_timm(backbone, backbone.name, in_channels)
    else:
        _load_file(backbone, state, f"backbone {backbone.name} from {weights}")


def backbone_normalization(name: str, weights: str | None) -> Normalization:
    """Return the normalisation of RGB that `prepare_backbone` would give, by name or weights file.

    Raises:
        UsageError: timm does not know the backbone.
        DataError: The file is not there.
    """
    try:
        timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        raise UsageError(
            f"backbone {name}: unknown to timm; {nearest(name, timm.list_models())}"
        ) from None
    metadata = {} if weights in (None, "imagenet") else read_backbone_weights(str(weights))[1]
    return _normalization(name, metadata, in_channels=3)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors (floating ones as float32) and the metadata.

    Raises DataError where the file is not there or not safetensors.
    """
    if path.suffix in {".pth", ".pt", ".bin", ".ckpt"}:
        raise DataError(
            f"{path}: a pickled file, expected .safetensors; convert it with: seenet import {path} OUT.safetensors"
        )
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such weights file; give a .safetensors file, a SeENet model, imagenet, or null"
        ) from None
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path}: not a readable .safetensors file ({error}); download or export it again"
        ) from None
    return {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }, metadata


def read_backbone_weights(weights: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file's backbone tensors; of a SeENet model its backbone's and its normalisation."""
    state, metadata = read_safetensors(_file_of(weights))
    if "seenet" not in metadata:
        return state, metadata
    card = json.loads(metadata["seenet"])
    prefix = "backbone.body."
    kept = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    mean, std = (",".join(map(str, card["normalization"][part])) for part in ("mean", "std"))
    architecture = RESNET_V1 if card["options"].get("stride_on") == "conv1" else ""
    return kept, {"architecture": architecture, "mean": mean, "std": std}


def load_part(part: nn.Module, name: str, weights: str | None) -> None:
    """Fill a part above the backbone from a SeENet model that has it under `name`, all of it.

    Without `weights`, or with "imagenet", it starts at random, which is logged.

    Raises DataError where the model does not have it.
    """
    if weights in (None, "imagenet"):
        log.info("%s: random weights", name)
        return
    path = _file_of(str(weights))
    state, _ = read_safetensors(path)
    own = {
        key.removeprefix(f"{name}."): value
        for key, value in state.items()
        if key.startswith(f"{name}.")
    }
    try:
        part.load_state_dict(own)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n")[1].split())[:160]
        raise DataError(
            f"{path}: its {name} does not fit ({reason}); expected a SeENet model of the same variant and width"
        ) from None


def _file_of(weights: str) -> Path:
    return (
        find_model(weights) if Path(weights).is_dir() or not Path(weights).suffix else Path(weights)
    )


def fit_weights(model: nn.Module, state: dict[str, Tensor]) -> FitReport:
    """Load what fits by name and shape; list the rest (another class count, other channels)."""
    own = model.state_dict()
    fitting = {
        key: value for key, value in state.items() if key in own and own[key].shape == value.shape
    }
    skipped = [
        f"{key}: file has {tuple(value.shape)}, model has {tuple(own[key].shape) if key in own else 'no such tensor'}"
        for key, value in state.items()
        if key not in fitting
    ]
    skipped += [f"{key}: not in the file, starts at random" for key in own if key not in state]
    model.load_state_dict(fitting, strict=False)
    return FitReport(len(fitting), skipped)


def _load_timm(backbone: Backbone, name: str, in_channels: int) -> None:
    try:
        pretrained = timm.create_model(name, pretrained=True, in_chans=in_channels)
    except Exception as error:  # timm and its hub client raise whatever their transport raises
        raise DataError(
            f"backbone {name}: no ImageNet weights ({str(error).splitlines()[0][:120]}); needs a network the first time, "
            "or a local file: model.weights=FILE.safetensors, or model.weights=null for a random start"
        ) from None
    _load_file(backbone, pretrained.state_dict(), f"backbone {name} from timm")


def _load_file(backbone: Backbone, state: dict[str, Tensor], what: str) -> None:
    """Load tensors by the names that timm and torchvision write.

    `features_only` joins the first two parts of some with an underscore, or puts a word before all.
    """
    own = backbone.body.state_dict()
    flat = {key.replace(".", "_"): key for key in own}
    flat |= {
        name.replace(".", "_"): key
        for name, key in zip(backbone.network.state_dict(), own, strict=True)
    }
    renamed = {
        flat[key.replace(".", "_")]: value
        for key, value in state.items()
        if key.replace(".", "_") in flat
    }
    for key, value in renamed.items():
        target = own[key]
        if (
            value.dim() == 4
            and value.shape != target.shape
            and value.shape[1] == 3
            and value.shape[2:] == target.shape[2:]
        ):
            renamed[key] = adapt_input_conv(target.shape[1], value)
    report = fit_weights(backbone.body, renamed)
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    absent = [line for line in report.skipped if line.split(":")[0] not in counters]
    if report.loaded < len(own) // 2:
        raise DataError(
            f"{what}: only {report.loaded} of {len(own)} tensors fit ({absent[0] if absent else 'no names agree'}); another backbone's?"
        )
    unused = len(state) - len(renamed)
    log.info(
        "%s: %d of %d tensors loaded, %d in the file not used (classifier and later layers)",
        what,
        report.loaded,
        len(own),
        unused,
    )
    for line in absent:
        log.warning("%s: not loaded: %s", what, line)


def _normalization(name: str, metadata: dict[str, str], in_channels: int) -> Normalization:
    config = timm.get_pretrained_cfg(name)
    mean, std = (
        (config.mean, config.std)
        if config is not None
        else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    if "mean" in metadata and "std" in metadata:
        mean, std = (
            tuple(float(value) for value in metadata[part].split(",")) for part in ("mean", "std")
        )
    if len(mean) != in_channels:
        # No statistics are published for other channel counts: the mean of RGB's for each.
        mean, std = ((sum(values) / len(values),) * in_channels for values in (mean, std))
    return Normalization(tuple(mean), tuple(std))
