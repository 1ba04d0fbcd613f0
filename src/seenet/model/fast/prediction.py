"""The form of a network that predicts on the CPU: folded, fused, and compared with the network."""

import copy
import logging
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seenet.model.fast import use_plain
from seenet.model.fast.concat_free import ConcatFreeSeENet
from seenet.model.fast.folding import fold, fold_concatenations, fold_local_convs
from seenet.model.fast.fused import fuse, is_available
from seenet.model.seenet import SeENet
from seenet.model.segmenter import Segmenter

log = logging.getLogger("seenet")

Form = Literal["fused", "compiled", "plain"]
"""Operators of the folded network.

"fused": the forms of `fused`. "compiled": the same but oneDNN's, whose place torch.compile takes.
"plain": torch's own, which can be cast and traced.
"""
LARGEST_ERROR = 1e-4
"""Largest difference of the scores, relative to the network's largest score."""
SIDES = (65, 49)
"""Sides of the random image on which the scores are compared."""


def prediction_form(model: nn.Module, form: Form = "fused") -> nn.Module:
    """Return a copy of a network in eval mode that computes the same scores faster on the CPU.

    The copy is called as the network: normalised images N x C x H x W, `size` -> N x K x h x w. It
    has its own tensors and does not follow later changes of the network (`state_of`).

    Returns:
        The network itself where it is not a `Segmenter`, has hooks (the copy would not call them),
        or where the scores differ by more than 1e-4 of the largest, which is logged.
    """
    if not isinstance(model, Segmenter) or any(_has_hooks(module) for module in model.modules()):
        return model
    lacks_operators = form == "fused" and not is_available()
    reasons = []
    with torch.inference_mode(False), torch.no_grad():
        for kind in ("plain",) if form == "plain" or lacks_operators else (form, "plain"):
            try:
                folded = _folded_copy(model, kind)
                error = _error(model, folded)
            except Exception as failure:  # of a user's network, or an operator of this processor
                reasons.append(f"{type(failure).__name__}: {' '.join(str(failure).split())[:160]}")
                continue
            if error <= LARGEST_ERROR:
                return folded
            reasons.append(
                f"scores differ by {error:.1e} of the largest, expected at most {LARGEST_ERROR:.0e}"
            )
    log.info(
        "predicting with the plain network, which is slower: its folded form differs (%s)",
        "; ".join(reasons),
    )
    return model


def state_of(model: nn.Module) -> tuple[Any, ...]:
    """Return a value that changes when a weight, buffer, module or hook of a network changes.

    Writing through `.data` is not noticed.
    """
    tensors = (*model.parameters(), *model.buffers())
    modules = tuple((id(module), _has_hooks(module)) for module in model.modules())
    return modules + tuple(
        (id(tensor), tensor.data_ptr(), None if tensor.is_inference() else tensor._version)
        for tensor in tensors
    )


def _folded_copy(model: Segmenter, form: str) -> nn.Module:
    twin = _same_tensors(model)
    twin.auxiliary = None
    fold_local_convs(twin)
    fold(twin)
    if type(twin) is SeENet and ConcatFreeSeENet.fits(twin):
        twin.__class__ = ConcatFreeSeENet
        fold_concatenations(twin)
    _copy_shared(twin, model)
    if form != "plain":
        fuse(twin, compiled=form == "compiled")
    return twin


def _same_tensors(model: Segmenter) -> Segmenter:
    """Copy the modules of a network, in eval mode, with its own tensors instead of copies."""
    memo: dict[int, Any] = {
        id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())
    }
    twin = copy.deepcopy(model, memo).eval()
    # A network in training may use faster forms; from its file it does not, with the same result.
    use_plain(twin)
    return twin


def _copy_shared(twin: nn.Module, model: nn.Module) -> None:
    """Copy the tensors that a twin shares with its network."""
    shared = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    for module in twin.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.data_ptr() in shared:
                clone = parameter.detach().clone()
                module._parameters[name] = nn.Parameter(clone, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.data_ptr() in shared:
                module._buffers[name] = buffer.detach().clone()


def _error(model: Segmenter, twin: nn.Module) -> float:
    """Return the largest difference of scores on a random image, relative to the largest score."""
    generator = torch.Generator().manual_seed(0)
    channels = len(model.normalization.mean)
    images = torch.randn(1, channels, *SIDES, dtype=torch.float32, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    expected: Tensor = _same_tensors(model)(images)
    largest = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    return float((twin(images) - expected).abs().max() / largest)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
