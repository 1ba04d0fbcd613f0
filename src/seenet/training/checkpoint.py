"""Checkpoints: folders of safetensors and JSON, written as a whole and verified by a manifest."""

import json
import logging
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from seenet.core.errors import DataError
from seenet.core.files import sha256
from seenet.distributed import Ranks
from seenet.training.run import writing

log = logging.getLogger("seenet")

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to continue: tensors by file name, and JSON values."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save(root: Path, step: int, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint: temporary folder, sync, rename, verify; then keep the newest `keep`.

    An intact checkpoint of this step is kept: replacing it would not be atomic, and a signal that
    comes after the step's validation must not save the validation's line, which a resume repeats.

    Raises:
        DataError: It cannot be written; the earlier checkpoints are unchanged.
    """
    final = root / f"step-{step:08d}"
    temporary = root / f".{final.name}.{os.getpid()}"
    with suppress(DataError, OSError):
        verify(final)
        return final
    with writing(root):
        for left_over in root.glob(".step-*"):
            shutil.rmtree(left_over)
        try:
            _write(temporary, checkpoint)
            if final.exists():
                shutil.rmtree(final)
            temporary.rename(final)
        finally:
            # A partial checkpoint would take up space that the disk lacks.
            shutil.rmtree(temporary, ignore_errors=True)
        _sync(root)
    verify(final)
    # Later checkpoints were skipped as damaged; they must not displace an intact one.
    kept = sorted(path for path in root.glob("step-*") if path.name <= final.name)
    with writing(root):
        for old in kept[:-keep]:
            shutil.rmtree(old)
    return final


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    """Write all files and their manifest, and sync them."""
    folder.mkdir(parents=True)
    for name, tensors in checkpoint.tensors.items():
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
            folder / f"{name}.safetensors",
        )
    (folder / "state.json").write_text(json.dumps(checkpoint.state), encoding="utf-8")
    (folder / MANIFEST).write_text(_manifest(folder), encoding="utf-8")
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _manifest(folder: Path) -> str:
    """Return the manifest of a checkpoint's files: their SHA-256 by name, as JSON."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    return json.dumps({path.name: sha256(path) for path in files}, indent=1)


def load(folder: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        DataError: A file is missing or damaged; the message names it.
    """
    try:
        verify(folder)
        tensors = {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
        return Checkpoint(tensors, json.loads((folder / "state.json").read_text(encoding="utf-8")))
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(
            f"{folder}: cannot be read ({error}); remove it to continue from an earlier one"
        ) from None


def newest(root: Path) -> Checkpoint | None:
    """Read the newest intact checkpoint; skip damaged ones with a warning.

    Returns:
        None if there is no checkpoint.

    Raises:
        DataError: All of them are damaged.
    """
    folders = sorted(root.glob("step-*"), reverse=True)
    for folder in folders:
        try:
            return load(folder)
        except DataError as error:
            log.warning("%s; trying the one before", error)
    if folders:
        raise DataError(
            f"{root}: all {len(folders)} checkpoints are damaged; start again with another --out"
        )
    return None


def check_shared(step: int, group: Ranks, name: str) -> None:
    """Raise DataError if ranks start from different checkpoints; collective."""
    first = group.from_first(step)
    if group.any(first != step):
        raise DataError(
            f"{name}: rank {group.rank} finds the checkpoint of step {step}, rank 0 that of step "
            f"{first}; expected one folder for all machines, give with --out one that they share"
        )


def verify(folder: Path) -> None:
    """Raise DataError if a file is missing, extra, or differs from its SHA-256."""
    found = _manifest(folder)
    try:
        expected = (folder / MANIFEST).read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        expected = ""
    # As text: JSON would accept a changed blank.
    if found != expected:
        # The last line has no comma.
        lines = [set(text.replace(",", "").split("\n")) for text in (found, expected)]
        names = sorted({line.split('"')[1] for line in lines[0] ^ lines[1] if '"' in line})
        raise DataError(
            f"{folder}: damaged, {', '.join(names) or 'a blank'} differs from the SHA-256 "
            f"in its {MANIFEST}"
        )


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors under `parameter index.name`."""
    return {
        f"{index}.{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the optimizer's tensors; its groups and rates come from the recipe."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        like = parameters[int(index)]
        # With the parameter's strides and alignment, as the optimizer made them: the loops for
        # other strides may round differently.
        state.setdefault(int(index), {})[name] = (
            torch.empty_like(like).copy_(value) if value.shape == like.shape else value.clone()
        )
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
