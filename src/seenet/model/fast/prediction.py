"""The form of a network that predicts on the CPU: folded, fused, and compared with the network."""

import copy
import logging
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seenet.model.fast import use_plain
from seenet.model.fast.concat_free import ConcatFreeSeENet
from seenet.model.fast.folding import fold, fold_concatenations
from seenet.model.fast.fused import fuse
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
    lacks_operators = form == "fused" and not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    reasons = []
    with torch.inference_mode(False), torch.no_grad():
        for kind in dict.fromkeys(("plain" if lacks_operators else form, "plain")):
            try:
                folded, error = _folded_copy(model, kind)
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


def _folded_copy(model: Segmenter, form: Form) -> tuple[nn.Module, float]:
    """Return a folded copy, and its error: that of the scores of a random image, relative."""
    tensors = (*model.parameters(), *model.buffers())
    # Until it is folded, the copy shares the network's tensors, which saves their memory.
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()
    twin.auxiliary = None
    # A network in training may use faster forms; from its file it does not, with the same result.
    use_plain(twin)
    channels, generator = len(model.normalization.mean), torch.Generator().manual_seed(0)
    images = torch.randn(1, channels, *SIDES, dtype=torch.float32, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    expected: Tensor = twin(images)
    fold(twin)
    if type(twin) is SeENet and ConcatFreeSeENet.fits(twin):
        twin.__class__ = ConcatFreeSeENet
        fold_concatenations(twin)
    _copy_shared(twin, {tensor.data_ptr() for tensor in tensors})
    if form != "plain":
        fuse(twin, compiled=form == "compiled")
    largest = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    return twin, float((twin(images) - expected).abs().max() / largest)


def _copy_shared(twin: Any, shared: set[int]) -> None:
    """Copy the tensors of a network whose memory is shared."""
    for module in twin.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and tensor.data_ptr() in shared:
                    tensors[name] = copy.deepcopy(tensor)
    twin.requires_grad_(False)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
