"""A model file at half the size: matrices and kernels in fp16, which every reader casts back."""

import math
from pathlib import Path

import torch

from seenet.core.errors import CheckError, DataError
from seenet.core.files import check_free, replacing
from seenet.model.files import load_model, save_model

LARGEST_ERROR = 2.0**-10
"""Of a weight, relative to the largest of its tensor; fp16 keeps 11 bits."""


def export_half(model: str | Path, out: Path, *, overwrite: bool = False) -> float:
    """Write `out` from a run, file or bundled name; returns the largest error of a weight, relative to the largest of its tensor.

    The file is read back before it gets its name. Raises DataError: no such model, `out` exists (without `overwrite`) or is no
    .safetensors; CheckError: weights too large for fp16.
    """
    if out.suffix != ".safetensors":
        raise DataError(f"{out}: found suffix {out.suffix!r}, expected .safetensors; other files need --format onnx, openvino or torch")
    check_free([out], overwrite=overwrite)
    saved = load_model(model)
    with replacing(out) as temporary:
        save_model(temporary, saved.model, saved.labels, notes={**saved.notes, "fp16_of": saved.sha256}, half=True)
        read_back = load_model(temporary).model.state_dict()
        errors = [_error(value, read_back[key]) for key, value in saved.model.state_dict().items()]
        # Of numbers and NaN, max takes whichever it likes.
        error = max(errors, key=lambda value: math.inf if math.isnan(value) else value)
        if not error <= LARGEST_ERROR:
            raise CheckError(
                f"{saved.path}: a weight changes by {error:.2g} of its tensor in fp16, expected {LARGEST_ERROR:.2g} at most; keep it"
            )
    return error


def _error(before: torch.Tensor, after: torch.Tensor) -> float:
    if not before.is_floating_point():
        return 0.0
    return float((after - before).abs().max() / before.abs().max().clamp(min=torch.finfo(torch.float32).tiny))
