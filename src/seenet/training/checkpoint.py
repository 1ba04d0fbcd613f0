"""Checkpoints: safetensors and JSON in one folder, verified by a manifest, whole or not there."""

import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from seenet.core.errors import DataError
from seenet.core.files import sha256
from seenet.training.run import writing

log = logging.getLogger("seenet")

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on: tensors by file, and JSON."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def folder_of(root: Path, step: int) -> Path:
    """Name the folder of the checkpoint after `step` steps."""
    return root / f"step-{step:08d}"


def save(root: Path, step: int, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint: beside, sync, rename, verify; then remove the oldest beyond `keep`.

    Raises:
        DataError: The disk does not take it. What was there before is not touched then.
    """
    final = folder_of(root, step)
    temporary = root / f".{final.name}.{os.getpid()}"
    with writing(root):
        for left_over in root.glob(".step-*"):
            shutil.rmtree(left_over)
        try:
            _write(temporary, checkpoint)
            if final.exists():
                shutil.rmtree(final)
            temporary.rename(final)
        finally:
            # A half-written one would hold the room that the disk lacks.
            shutil.rmtree(temporary, ignore_errors=True)
        _sync(root)
    verify(final)
    # Later ones were passed over as damaged; they must not push out a good one.
    kept = sorted(path for path in root.glob("step-*") if path.name <= final.name)
    with writing(root):
        for old in kept[:-keep]:
            shutil.rmtree(old)
    return final


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    """Write all files with their manifest, and sync them."""
    folder.mkdir(parents=True)
    for name, tensors in checkpoint.tensors.items():
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
    (folder / "state.json").write_text(json.dumps(checkpoint.state), encoding="utf-8")
    manifest = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(_text(manifest), encoding="utf-8")
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def load(folder: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        DataError: It names the file that does not hold what was written.
    """
    verify(folder)
    try:
        tensors = {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
        return Checkpoint(tensors, json.loads((folder / "state.json").read_text(encoding="utf-8")))
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{folder}: cannot be read ({error}); remove it to go on from an earlier one") from None


def newest(root: Path) -> Checkpoint | None:
    """Read the newest checkpoint that is whole; pass over damaged ones with a warning.

    Returns:
        None where there is no checkpoint at all.

    Raises:
        DataError: None of them is whole.
    """
    folders = sorted(root.glob("step-*"), reverse=True)
    for folder in folders:
        try:
            return load(folder)
        except DataError as error:
            log.warning("%s; trying the one before", error)
    if folders:
        raise DataError(f"{root}: none of {len(folders)} checkpoints is whole; start again with another --out")
    return None


def verify(folder: Path) -> None:
    """Raise DataError where a file is missing, extra, or differs from its SHA-256."""
    try:
        text = (folder / MANIFEST).read_bytes().decode()
        manifest = json.loads(text)
    except (OSError, ValueError):
        manifest, text = None, ""
    # Byte by byte: blanks are part of it, which JSON would not mind.
    if not isinstance(manifest, dict) or text != _text(manifest):
        raise DataError(f"{folder / MANIFEST}: missing or damaged, expected the SHA-256 of each file")
    found = {path.name for path in folder.iterdir()} - {MANIFEST}
    if found != set(manifest):
        raise DataError(f"{folder}: holds {', '.join(sorted(found))}, but its manifest names other files")
    for name, digest in manifest.items():
        if sha256(folder / name) != digest:
            raise DataError(f"{folder / name}: damaged, its SHA-256 differs from the manifest's")


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors under `parameter index.name`."""
    return {
        f"{index}.{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the optimizer's tensors; its groups and rates come from the recipe."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        like = parameters[int(index)]
        # Strides and alignment of the parameter, as the optimizer made them: other loops may round
        # otherwise.
        state.setdefault(int(index), {})[name] = torch.empty_like(like).copy_(value) if value.shape == like.shape else value.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _text(manifest: dict[str, str]) -> str:
    return json.dumps(manifest, indent=1)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
