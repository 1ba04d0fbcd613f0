"""Starting weights of a network: load them, and log what was loaded and what starts at random."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError, safe_open
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
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
    """The number of loaded tensors, and for each of the others a line with the reason."""

    loaded: int
    skipped: list[str]


def prepare_backbone(
    name: str, weights: str | None, *, in_channels: int, stride_on: str, **options: Any
) -> tuple[Backbone, Normalization]:
    """Build the backbone with its starting weights, and return it with its normalisation.

    Weights of ResNet v1 let it stride on "conv1"; the options are those of `Backbone`.
    """
    state, metadata = _read_weights(weights)
    if metadata.get("architecture") == RESNET_V1:
        stride_on = "conv1"
    backbone = Backbone(name, in_channels=in_channels, stride_on=stride_on, **options)
    if weights is None:
        log.info("backbone %s: random weights", name)
    _load_weights(backbone, weights, state, in_channels)
    return backbone, _normalization(name, metadata, in_channels)


def fill_backbone(backbone: Backbone, weights: str | None, in_channels: int) -> Normalization:
    """Load starting weights into a backbone that is there already, and return its normalisation.

    Without `weights` it keeps those that it has.

    Raises:
        UsageError: Weights whose blocks stride elsewhere than the backbone's.
        DataError: Weights that are not there or do not fit.
    """
    state, metadata = _read_weights(weights)
    if metadata.get("architecture") == RESNET_V1 and backbone.stride_on != "conv1":
        raise UsageError(
            f"weights={weights}: of a ResNet v1, whose blocks stride on their first convolution; "
            f"make the network with Backbone({backbone.name!r}, stride_on='conv1')"
        )
    _load_weights(backbone, weights, state, in_channels)
    return _normalization(backbone.name, metadata, in_channels)


def backbone_normalization(name: str, weights: str | None, in_channels: int = 3) -> Normalization:
    """Return the normalisation that `prepare_backbone` gives, without building a network.

    Raises:
        UsageError: timm does not know the backbone.
        DataError: The file of weights is missing.
    """
    try:
        timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        raise UsageError(
            f"backbone {name}: unknown to timm; {nearest(name, timm.list_models())}"
        ) from None
    return _normalization(name, _read_weights(weights)[1], in_channels)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors (floating ones as float32) and the metadata.

    Raises DataError where the file is missing or is not safetensors.
    """
    if path.suffix in {".pth", ".pt", ".bin", ".ckpt"}:
        raise DataError(
            f"{path}: a pickled file, expected .safetensors; "
            f"convert it with: seenet import {path} OUT.safetensors"
        )
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such weights file; "
            "give a .safetensors file, a SeENet model, imagenet, or null"
        ) from None
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path}: not a readable .safetensors file ({error}); download or export it again"
        ) from None
    return {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }, metadata


def _read_weights(weights: str | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a backbone's tensors and metadata from a weights file or a SeENet model.

    Without a file (None, "imagenet") both are empty.
    """
    if weights in (None, "imagenet"):
        return {}, {}
    state, metadata = read_safetensors(_file_of(str(weights)))
    if "seenet" not in metadata:
        return state, metadata
    card = json.loads(metadata["seenet"])
    mean, std = (",".join(map(str, card["normalization"][part])) for part in ("mean", "std"))
    architecture = RESNET_V1 if card["options"].get("stride_on") == "conv1" else ""
    metadata = {"mean": mean, "std": std, "architecture": architecture}
    return _below(state, "backbone.body"), metadata


def load_part(part: nn.Module, name: str, weights: str | None) -> None:
    """Load all weights of a part above the backbone from a SeENet model that has it as `name`.

    Without `weights`, or with "imagenet", it keeps its random weights, which is logged.

    Raises DataError where the model does not have the part in this form.
    """
    if weights in (None, "imagenet"):
        log.info("%s: random weights", name)
        return
    path = _file_of(str(weights))
    try:
        part.load_state_dict(_below(read_safetensors(path)[0], name))
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n")[1].split())[:160]
        raise DataError(
            f"{path}: its {name} does not fit ({reason}); "
            "expected a SeENet model of the same variant and width"
        ) from None


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors of a submodule, under their names in it."""
    prefix += "."
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


def _file_of(weights: str) -> Path:
    path = Path(weights)
    return find_model(weights) if path.is_dir() or not path.suffix else path


def fit_weights(model: nn.Module, state: dict[str, Tensor]) -> FitReport:
    """Load the tensors that fit by name and shape (another class count does not), list the rest."""
    own = model.state_dict()
    fitting = {
        key: value for key, value in state.items() if key in own and own[key].shape == value.shape
    }
    skipped = [
        f"{key}: file has {tuple(value.shape)}, "
        f"model has {tuple(own[key].shape) if key in own else 'no such tensor'}"
        for key, value in state.items()
        if key not in fitting
    ]
    skipped += [f"{key}: not in the file, starts at random" for key in own if key not in state]
    model.load_state_dict(fitting, strict=False)
    return FitReport(len(fitting), skipped)


def _load_weights(
    backbone: Backbone, weights: str | None, state: dict[str, Tensor], in_channels: int
) -> None:
    """Load timm's weights ("imagenet") or the tensors of a file, and log the result.

    Files have the names that timm and torchvision write. `features_only` joins the first two parts
    of some names with an underscore, or adds a prefix.
    """
    if weights is None:
        return
    if weights == "imagenet":
        state, weights = _timm_weights(backbone.name, in_channels), "timm"
    source = f"backbone {backbone.name} from {weights}"
    own = backbone.body.state_dict()
    targets = {
        name.replace(".", "_"): key
        for names in (own, backbone.network.state_dict())
        for name, key in zip(names, own, strict=True)
    }
    renamed = {
        targets[key.replace(".", "_")]: value
        for key, value in state.items()
        if key.replace(".", "_") in targets
    }
    for key, value in renamed.items():
        shape = own[key].shape
        is_kernel = value.dim() == 4 and value.shape[2:] == shape[2:]
        if is_kernel and value.shape[1] == 3 != shape[1]:
            renamed[key] = adapt_input_conv(shape[1], value)
    report = fit_weights(backbone.body, renamed)
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    absent = [line for line in report.skipped if line.split(":")[0] not in counters]
    if report.loaded < len(own) // 2:
        reason = absent[0] if absent else "no names agree"
        raise DataError(
            f"{source}: only {report.loaded} of {len(own)} tensors fit ({reason}); "
            "is it the file of another backbone?"
        )
    log.info(
        "%s: %d of %d tensors loaded, %d in the file not used (classifier and later layers)",
        source,
        report.loaded,
        len(own),
        len(state) - len(renamed),
    )
    for line in absent:
        log.warning("%s: not loaded: %s", source, line)


def _timm_weights(name: str, in_channels: int) -> dict[str, Tensor]:
    try:
        return timm.create_model(name, pretrained=True, in_chans=in_channels).state_dict()
    except Exception as error:  # timm and its hub client raise whatever their transport raises
        raise DataError(
            f"backbone {name}: no ImageNet weights ({str(error).splitlines()[0][:120]}); "
            "the first time needs a network connection; or give a local file: "
            "model.weights=FILE.safetensors, or model.weights=null for a random start"
        ) from None


def _normalization(name: str, metadata: dict[str, str], in_channels: int) -> Normalization:
    config = timm.get_pretrained_cfg(name)
    mean, std = (
        (config.mean, config.std) if config else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    if "mean" in metadata and "std" in metadata:
        mean, std = (
            tuple(float(value) for value in metadata[part].split(",")) for part in ("mean", "std")
        )
    if len(mean) != in_channels:
        # Statistics of other channel counts are not published: use the mean of RGB's.
        mean, std = ((sum(values) / len(values),) * in_channels for values in (mean, std))
    return Normalization(tuple(mean), tuple(std))
