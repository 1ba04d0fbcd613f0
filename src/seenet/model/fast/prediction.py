"""The form of a network that predicts on the CPU: folded and fused, and compared with the plain one before it is trusted."""

import copy
import logging
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seenet.model.fast import use_plain
from seenet.model.fast.convolution import available
from seenet.model.fast.folded import fold_locals, fold_parts
from seenet.model.fast.folding import fold
from seenet.model.fast.parts import PartsSeENet
from seenet.model.fast.steady import fuse
from seenet.model.network import SeENet
from seenet.model.segmenter import Segmenter

log = logging.getLogger("seenet")

Form = Literal["fused", "compiled", "plain"]
"""How a twin computes: by oneDNN's fused operators and the forms of `steady`; the latter beside operators that torch.compile fuses; or by
plain operators alone, which can be cast and traced.
"""
LARGEST_ERROR = 1e-4
"""Of the twin's scores, relative to the largest of the plain network's."""
SIDES = (65, 49)
"""Of the random picture that both are compared on."""


def prediction_form(model: nn.Module, form: Form = "fused") -> nn.Module:
    """A twin of a network in eval mode that gives the same scores faster on the CPU, or the network itself where there is none.

    Called as the network: normalised images N x C x H x W, `size` -> N x K x h x w. The twin has tensors of its own (the convolutions'
    weights once more) and does not follow later changes of the model's: `state_of` tells them. A network other than a `Segmenter`, or with
    hooks, which the twin would not call, is left as it is; so is one whose twin's scores are off by more than 1e-4 of the largest, which
    one line of the log says.
    """
    if not isinstance(model, Segmenter) or any(_hooked(module) for module in model.modules()):
        return model
    reasons = []
    with torch.inference_mode(False), torch.no_grad():
        for one in (form, "plain") if form == "compiled" or (form == "fused" and available()) else ("plain",):
            try:
                twin = _twin(model, one)
                error = _error(model, twin)
            except Exception as failure:  # of a network that nobody here knows, or an operator that this processor lacks
                reasons.append(f"{type(failure).__name__}: {' '.join(str(failure).split())[:160]}")
                continue
            if error <= LARGEST_ERROR:
                return twin
            reasons.append(f"scores differ by {error:.1e} of the largest, expected at most {LARGEST_ERROR:.0e}")
    log.info("predicting with the plain network, more slowly: its folded form does not answer as it does (%s)", "; ".join(reasons))
    return model


def state_of(model: nn.Module) -> tuple[Any, ...]:
    """What changes where a weight, a buffer or a module is replaced, written to (but not through `.data`) or hooked."""
    tensors = (*model.parameters(), *model.buffers())
    modules = tuple((id(module), _hooked(module)) for module in model.modules())
    return modules + tuple((id(tensor), tensor.data_ptr(), None if tensor.is_inference() else tensor._version) for tensor in tensors)


def _twin(model: Segmenter, form: str) -> nn.Module:
    twin = _same_tensors(model)
    twin.auxiliary = None
    fold_locals(twin)
    fold(twin)
    if type(twin) is SeENet and PartsSeENet.fits(twin):
        twin.__class__ = PartsSeENet
        fold_parts(twin)
    places = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    for module in twin.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.data_ptr() in places:
                module._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.data_ptr() in places:
                module._buffers[name] = buffer.detach().clone()
    if form != "plain":
        fuse(twin, compiled=form == "compiled")
    return twin


def _same_tensors(model: Segmenter) -> Segmenter:
    """A copy of the modules alone, in eval mode; the tensors are the model's, so that nothing is there twice before it is folded."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, memo).eval()
    # The faster forms of a training run: a network read from its file has none of them, and must have the same twin.
    use_plain(twin)
    return twin


def _error(model: Segmenter, twin: nn.Module) -> float:
    """The largest difference of their scores on a random picture, relative to the largest score."""
    images = torch.randn(1, len(model.normalization.mean), *SIDES, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    expected: Tensor = _same_tensors(model)(images)
    return float((twin(images) - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny))


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
