"""The model file: one .safetensors with everything prediction needs in its metadata."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from seenet.core.errors import DataError, UsageError
from seenet.core.files import bundled_models, find_model, replacing, sha256
from seenet.core.labels import LabelSet
from seenet.model import assemble
from seenet.model.backbone import Backbone
from seenet.model.baselines import check_installed
from seenet.model.factory import FactoryNetwork
from seenet.model.probe import levels_of
from seenet.model.segmenter import Normalization, Segmenter
from seenet.model.unpickle import import_pickle
from seenet.model.weights import FitReport, fit_weights, read_safetensors

__all__ = [
    "FitReport",
    "SavedModel",
    "bundled_models",
    "card_of",
    "find_model",
    "fit_weights",
    "from_card",
    "import_pickle",
    "load_model",
    "read_safetensors",
    "save_model",
]

FORMAT = 1


@dataclass(frozen=True)
class SavedModel:
    """A model read from its file, in eval mode, with its labels and the notes of its training."""

    model: Segmenter
    labels: LabelSet
    notes: dict[str, Any]
    path: Path
    sha256: str


def save_model(
    path: Path,
    model: Segmenter,
    labels: LabelSet,
    *,
    state: dict[str, torch.Tensor] | None = None,
    notes: dict[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write weights and metadata, whole or not at all.

    Args:
        state: Weights to write in the place of the model's own (a moving average).
        notes: JSON (recipe, step, version).
        half: Store matrices and kernels in fp16; vectors (norms, biases) stay fp32.
    """
    card = {"format": FORMAT, **card_of(model), "labels": asdict(labels), "notes": notes or {}}
    tensors = {}
    for key, value in (state or model.state_dict()).items():
        value = value.detach().cpu().contiguous()
        tensors[key] = (
            value.half() if half and value.is_floating_point() and value.dim() > 1 else value
        )
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"seenet": json.dumps(card)})


def read_notes(path: Path) -> dict[str, Any]:
    """Read the notes of `save_model` without the weights; empty for what is no whole model file."""
    return _read_part(path, "notes")


def read_options(path: Path) -> dict[str, Any]:
    """Read the options of `create_model` without the weights; empty as for `read_notes`."""
    return _read_part(path, "options")


def _read_part(path: Path, part: str) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(json.loads((file.metadata() or {})["seenet"])[part])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return {}


def load_model(name: str | Path, *, factory: str | None = None) -> SavedModel:
    """Read a model by run folder, file or bundled name (`find_model`).

    Args:
        factory: A network of `model.factory` is code, which no file (nor the recipe beside it) may
            choose to run: this must repeat the name that the file says.

    Raises:
        DataError: Something is wrong with the file.
        UsageError: `factory` is not what the file says.
    """
    path = find_model(name)
    state, metadata = read_safetensors(path)
    if "seenet" not in metadata:
        raise DataError(
            f"{path}: weights without SeENet's metadata; expected a model that seenet train wrote (use it as model.weights instead)"
        )
    card, labels = _read_card(path, metadata["seenet"])
    options = card["options"]
    _check_factory(path, options.get("factory"), factory)
    check_installed(str(options.get("variant")))
    made = FactoryNetwork(options) if factory else None
    try:
        model = _on_backbone(card) if made is None else made
        model.normalization = _normalization(card)
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from None
    return SavedModel(model.eval(), labels, card["notes"], path, sha256(path))


def _read_card(path: Path, text: str) -> tuple[dict[str, Any], LabelSet]:
    try:
        card = json.loads(text)
        if card["format"] > FORMAT:
            raise DataError(
                f"{path}: format {card['format']}, this version reads up to {FORMAT}; install a newer seenet"
            )
        if not isinstance(card["options"], dict) or not isinstance(card["notes"], dict):
            raise TypeError("its options or notes are no mapping")
        return card, LabelSet.from_json(card["labels"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: damaged or foreign model file ({' '.join(str(error).split())[:160]}); export or train it again"
    )


def card_of(model: Segmenter) -> dict[str, Any]:
    """Return what a network is built from, as JSON: options and normalisation."""
    return {"options": model.options, "normalization": asdict(model.normalization)}


def from_card(card: dict[str, Any], *, factory: str | None = None) -> Segmenter:
    """Build the network of `card_of`, untrained, without its weights file.

    Args:
        factory: Of a network of `model.factory` its name, since no file may choose to run code.

    Raises UsageError where a peer's library is not installed.
    """
    if factory:
        made = FactoryNetwork({**card["options"], "factory": factory})
        made.normalization = _normalization(card)
        return made
    check_installed(str(card["options"].get("variant")))
    return _on_backbone(card)


def _on_backbone(card: dict[str, Any]) -> Segmenter:
    options = card["options"]
    trunk = Backbone(
        options["backbone"],
        output_stride=options["output_stride"],
        in_channels=options["in_channels"],
        stride_on=options["stride_on"],
        levels=levels_of(options.get("probe")),
    )
    return assemble(trunk, _normalization(card), options)


def _normalization(card: dict[str, Any]) -> Normalization:
    return Normalization(tuple(card["normalization"]["mean"]), tuple(card["normalization"]["std"]))


def _check_factory(path: Path, named: str | None, trusted: str | None) -> None:
    if trusted and not named:
        raise UsageError(
            f"{path}: holds no network of model.factory; leave --factory {trusted} out"
        )
    if named and trusted != named:
        given = f", not of {trusted}" if trusted else ""
        raise UsageError(
            f"{path}: holds a network of model.factory={str(named)[:80]}{given}; that is code, which a file may not choose to run: "
            "if you have it and trust it, repeat the name with --factory"
        )
