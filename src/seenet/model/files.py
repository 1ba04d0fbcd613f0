"""The model file: one .safetensors with everything prediction needs in its metadata."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from seenet.core.errors import DataError, UsageError
from seenet.core.files import find_model, replacing, sha256
from seenet.core.labels import LabelSet
from seenet.core.picture_reader import PictureReader
from seenet.model import assemble
from seenet.model.backbone import Backbone
from seenet.model.baselines import check_installed
from seenet.model.factory import FactoryNetwork
from seenet.model.probe import levels_of
from seenet.model.segmenter import Normalization, Segmenter
from seenet.model.weights import fit_weights, read_safetensors

__all__ = [
    "SavedModel",
    "card_of",
    "find_model",
    "fit_weights",
    "from_card",
    "load_model",
    "read_notes",
    "read_options",
    "save_model",
]

FORMAT = 2
"""Version of the metadata: 2 where pictures are read by channels or a range of values, which
earlier versions would leave out, else 1.
"""


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
    """Write weights and metadata; the file is replaced whole or not at all.

    Args:
        state: Weights to write instead of the model's own, such as a moving average.
        notes: JSON values (recipe, step, version).
        half: Store matrices and kernels in fp16; vectors (norms, biases) stay fp32.
    """
    described = card_of(model)
    version = FORMAT if "reader" in described else 1
    card = {"format": version, **described, "labels": asdict(labels), "notes": notes or {}}
    tensors = {}
    for key, value in (state or model.state_dict()).items():
        value = value.detach().cpu().contiguous()
        is_matrix = value.is_floating_point() and value.dim() > 1
        tensors[key] = value.half() if half and is_matrix else value
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"seenet": json.dumps(card)})


def read_notes(path: Path) -> dict[str, Any]:
    """Read the notes of a model file without its weights; {} where it is not a whole model file."""
    return _read_part(path, "notes")


def read_options(path: Path) -> dict[str, Any]:
    """Read the options of `create_model` from a model file without its weights, as `read_notes`."""
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
        factory: The name that the file gives for its network of `model.factory`. That network is
            code, which neither a file nor the recipe beside it may choose to run.

    Raises:
        DataError: The file is missing, damaged or not a model.
        UsageError: `factory` is not the name in the file.
    """
    path = find_model(name)
    state, metadata = read_safetensors(path)
    if "seenet" not in metadata:
        raise DataError(
            f"{path}: weights without SeENet's metadata; expected a model that seenet train wrote "
            "(or use it as model.weights)"
        )
    try:
        card = json.loads(metadata["seenet"])
        if card["format"] > FORMAT:
            raise DataError(
                f"{path}: has format {card['format']}, this version reads up to {FORMAT}; "
                "install a newer seenet"
            )
        labels = LabelSet.from_json(card["labels"])
        card |= {name: dict(card[name]) for name in ("options", "notes")}
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None
    _check_factory(path, card["options"].get("factory"), factory)
    check_installed(str(card["options"].get("variant")))
    try:
        model = from_card(card, factory=factory)
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if factory and isinstance(error, UsageError):
            raise  # an error of the user's own code, which does not mean a damaged file
        raise _damaged(path, error) from None
    return SavedModel(model.eval(), labels, card["notes"], path, sha256(path))


def _damaged(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:160]
    return DataError(f"{path}: damaged or foreign model file ({reason}); export or train it again")


def card_of(model: Segmenter) -> dict[str, Any]:
    """Return the JSON values that `from_card` builds a network from.

    These are options and normalisation, and how pictures are read where that is not the default.
    """
    reader = model.reader.as_json()
    return {
        "options": model.options,
        "normalization": asdict(model.normalization),
        **({"reader": reader} if reader else {}),
    }


def from_card(card: dict[str, Any], *, factory: str | None = None) -> Segmenter:
    """Build the network of `card_of` with random weights.

    Args:
        factory: Name of the callable, for a network of `model.factory`: it is code, which no file
            may choose to run.

    Raises UsageError where a peer's library is not installed.
    """
    options = card["options"]
    mean, std = (tuple(card["normalization"][name]) for name in ("mean", "std"))
    reader = PictureReader.from_json(card.get("reader"))
    if factory:
        users_network = FactoryNetwork({**options, "factory": factory})
        users_network.normalization, users_network.reader = Normalization(mean, std), reader
        return users_network
    check_installed(str(options.get("variant")))
    trunk = Backbone(
        options["backbone"],
        output_stride=options["output_stride"],
        in_channels=options["in_channels"],
        stride_on=options["stride_on"],
        levels=levels_of(options.get("probe")),
    )
    model = assemble(trunk, Normalization(mean, std), options)
    model.reader = reader
    return model


def _check_factory(path: Path, saved: str | None, given: str | None) -> None:
    if given and not saved:
        raise UsageError(f"{path}: holds no network of model.factory; remove --factory {given}")
    if saved and given != saved:
        instead = f", not of {given}" if given else ""
        raise UsageError(
            f"{path}: holds a network of model.factory={str(saved)[:80]}{instead}; that is code, "
            "which a file may not choose to run: if you have it and trust it, repeat the name with "
            "--factory"
        )
