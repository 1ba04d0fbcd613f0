"""The form of a network that predicts on the CPU: folded, fused, and compared with the plain one.

Batch norms are folded (`folding`), each convolution is computed by the form that is fastest for it,
and what follows at each point (bias, a sum, an activation) is done on the way.
"""

import copy
import logging
from typing import Any, Literal

import torch
from timm.layers.padding import pad_same
from torch import Tensor, nn

from seenet.model.fast import depthwise, fft_conv, use_plain, winograd
from seenet.model.fast.concat_free import ConcatFreeSeENet
from seenet.model.fast.folding import ACTIVATIONS, FoldedConv, add_and_activate, fold, fold_concatenations, fold_local_convs
from seenet.model.seenet import SeENet
from seenet.model.segmenter import Segmenter

log = logging.getLogger("seenet")

Form = Literal["fused", "compiled", "plain"]
"""How a twin computes: "fused" by oneDNN's fused operators and the faster forms below, "compiled" by
the latter beside operators that torch.compile fuses, "plain" by plain operators alone, which can be
cast and traced."""
LARGEST_ERROR = 1e-4
"""Of the twin's scores, relative to the plain network's largest."""
SIDES = (65, 49)
"""Sides of the random picture that both are compared on."""


def prediction_form(model: nn.Module, form: Form = "fused") -> nn.Module:
    """Return a twin of a network in eval mode that gives the same scores faster on the CPU.

    The twin is called as the network: normalised images N x C x H x W, `size` -> N x K x h x w. It
    has tensors of its own (the convolutions' weights once more) and does not follow later changes
    of the model's: `state_of` tells them.

    Returns:
        The network itself where it is no `Segmenter`, has hooks, which the twin would not call, or
        where the twin's scores are off by more than 1e-4 of the largest, which the log says.
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
    """Return what changes where a weight, buffer or module is replaced, written to or hooked.

    Writing through `.data` is not seen.
    """
    tensors = (*model.parameters(), *model.buffers())
    modules = tuple((id(module), _hooked(module)) for module in model.modules())
    return modules + tuple((id(tensor), tensor.data_ptr(), None if tensor.is_inference() else tensor._version) for tensor in tensors)


def _twin(model: Segmenter, form: str) -> nn.Module:
    twin = _same_tensors(model)
    twin.auxiliary = None
    fold_local_convs(twin)
    fold(twin)
    if type(twin) is SeENet and ConcatFreeSeENet.fits(twin):
        twin.__class__ = ConcatFreeSeENet
        fold_concatenations(twin)
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
    """Copy the modules alone, in eval mode; the tensors are the model's: none is there twice."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, memo).eval()
    # The faster forms of a training run: a network read from its file has none of them, and must have the same twin.
    use_plain(twin)
    return twin


def _error(model: Segmenter, twin: nn.Module) -> float:
    """Return the largest difference of scores on a random picture, relative to the largest."""
    images = torch.randn(1, len(model.normalization.mean), *SIDES, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    expected: Tensor = _same_tensors(model)(images)
    return float((twin(images) - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny))


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


KEPT_BYTES = 40 << 20
"""Larger transformed kernels are not kept: the memory costs more than transforming them again."""


def keeps_grid(conv: FoldedConv) -> bool:
    """Tell whether a float32 convolution's output has the grid of its input, padded evenly."""
    kernel = conv.weight.shape[-2:]
    padding = tuple(spread * (side // 2) for spread, side in zip(conv.dilation, kernel, strict=True))
    return conv.weight.dtype == torch.float32 and conv.stride == (1, 1) and not conv.same and conv.padding == padding


class FoldedWinograd(nn.Module):
    """3x3 of many channels by Winograd's tiles; `plain` takes the pictures that tiles do not fit.

    Like all forms here it stands for a `FoldedConv` and is called as that; channels-last memory.
    """

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__()
        self.plain, self.weight, self.bias, self.activation = FusedConv(conv), conv.weight, conv.bias, conv.activation
        self.dilation = conv.dilation[0]
        size = 36 * self.weight.shape[0] * self.weight.shape[1] * self.weight.element_size()
        self.kernels = winograd.transform_kernels(self.weight) if size <= KEPT_BYTES else None

    @staticmethod
    def fits(conv: FoldedConv) -> bool:
        """Tell whether this form can stand for `conv`."""
        out, into, *kernel = conv.weight.shape
        square = kernel == [3, 3] and conv.dilation[0] == conv.dilation[1]
        return keeps_grid(conv) and square and conv.groups == 1 and min(out, into) >= winograd.LEAST_CHANNELS

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        if winograd.waste(x.shape[2], x.shape[3], self.dilation) > winograd.MOST_WASTE:
            out: Tensor = self.plain(x) if other is None else self.plain(x, other)
            return out
        kernels = winograd.transform_kernels(self.weight) if self.kernels is None else self.kernels
        y = winograd.convolve(x.permute(0, 2, 3, 1).contiguous(), kernels, self.dilation)
        return _after(y.permute(0, 3, 1, 2), self.bias, other, self.activation)


class FoldedLine(nn.Module):
    """r x 1 or 1 x r through the Fourier transform."""

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__()
        self.upright = conv.weight.shape[2] > 1
        self.weight = conv.weight.flatten(2).permute(2, 1, 0).contiguous()
        self.bias, self.activation = conv.bias, conv.activation

    @staticmethod
    def fits(conv: FoldedConv) -> bool:
        """Tell whether this form can stand for `conv`."""
        out, into, *kernel = conv.weight.shape
        line = min(kernel) == 1 and max(kernel) % 2 == 1 and max(kernel) >= fft_conv.LEAST_SIZE
        return keeps_grid(conv) and line and conv.dilation == (1, 1) and conv.groups == 1 and min(out, into) >= fft_conv.LEAST_CHANNELS

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        return _after(fft_conv.along(x, self.upright, self.weight, fft_conv.convolve), self.bias, other, self.activation)


class FoldedDepthwise(nn.Module):
    """Depthwise 3x3 of a large dilation as nine products of shifted pictures."""

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__()
        self.weight = conv.weight.reshape(-1, 9).t().contiguous()
        self.bias, self.activation, self.dilation = conv.bias, conv.activation, conv.dilation[0]

    @staticmethod
    def fits(conv: FoldedConv) -> bool:
        """Tell whether this form can stand for `conv`."""
        out, into, *kernel = conv.weight.shape
        square = kernel == [3, 3] and conv.dilation[0] == conv.dilation[1] > depthwise.QUICK_DILATION
        return keeps_grid(conv) and square and into == 1 and conv.groups == out

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        y = depthwise.shifted(x.permute(0, 2, 3, 1).contiguous(), self.weight, self.dilation)
        return _after(y.permute(0, 3, 1, 2), self.bias, other, self.activation)


def fuse(module: nn.Module, *, compiled: bool = False) -> None:
    """Put the fastest form in the place of every float32 `FoldedConv` within.

    `compiled`: for `torch.compile`, which calls these forms as they are and fuses what is left.
    """
    for name, child in module.named_children():
        if not isinstance(child, FoldedConv):
            fuse(child, compiled=compiled)
        elif child.weight.dtype == torch.float32:
            setattr(module, name, _form(child, compiled))


def _form(conv: FoldedConv, compiled: bool) -> nn.Module:
    for kind in (FoldedWinograd, FoldedLine, FoldedDepthwise):
        if kind.fits(conv):
            form: Any = kind(conv)
            if compiled:
                form.forward = torch.compiler.disable(form.forward)  # type: ignore[no-untyped-call]
            return form  # type: ignore[no-any-return]
    return conv if compiled else FusedConv(conv)


def _after(y: Tensor, bias: Tensor | None, other: Tensor | None, activation: nn.Module | None) -> Tensor:
    """Add the bias, then `other`, and activate, in y's own memory."""
    if bias is not None:
        y.add_(bias[:, None, None])
    return add_and_activate(y, other, activation)


class FusedConv(nn.Module):
    """A `FoldedConv` by oneDNN in one pass over the output; float32 on the CPU alone.

    From the second of two calls with one size on, the weights lie in the order that the kernel for
    that size reads; after a call with another size plainly again, since oneDNN would reorder them
    in every call, slowly. They are there once. Several threads may call one: size and weights
    change together, by one assignment. The operators are torch's own for `torch.compile` and not
    documented for others: `available` asks whether they are there, and whoever uses them compares
    the result.
    """

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__()
        self.kernel = list(conv.weight.shape[-2:])
        self.same, self.overwrites, self.channels = conv.same, conv.overwrites, len(conv.weight)
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        # Not buffers: torch cannot copy weights in oneDNN's order.
        self.bias = conv.bias
        self.ready: tuple[torch.Size | None, Tensor] = (None, conv.weight)
        """Size of the last call, and the weights in the order for that size, or plain."""
        self.activation = conv.activation
        self.attribute, self.numbers = ("none", []) if conv.activation is None else ACTIVATIONS[type(conv.activation)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "ready": (None, _plain(self.ready[1]))}

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        operators = torch.ops.mkldnn
        if self.same:
            _, stride, dilation, _ = self.geometry
            x = pad_same(x, self.kernel, stride, dilation)
        weight = self._weight_for(x.shape)
        if other is None:
            y: Tensor = operators._convolution_pointwise(x, weight, self.bias, *self.geometry, self.attribute, self.numbers, "")
            return y
        if self.attribute not in ("none", "relu") or not self._fits(x, other):
            y = operators._convolution_pointwise(x, weight, self.bias, *self.geometry, "none", [], "") + other
            return y if self.activation is None else self.activation(y)
        after: tuple[Any, ...] = ("add", 1.0, None if self.attribute == "none" else self.attribute, [], "")
        if self.overwrites:
            y = operators._convolution_pointwise_.binary(other, x, weight, self.bias, *self.geometry, *after)
        else:
            y = operators._convolution_pointwise.binary(x, other, weight, self.bias, *self.geometry, *after)
        return y

    def _weight_for(self, size: torch.Size) -> Tensor:
        last, weight = self.ready
        if size != last:
            weight = _plain(weight)
        elif not weight.is_mkldnn:
            weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry, list(size))
        self.ready = (size, weight)
        return weight

    def _fits(self, x: Tensor, other: Tensor) -> bool:
        """Tell whether `other` has the output's very shape, as the fused sum takes for granted."""
        padding, stride, dilation, _ = self.geometry
        sides = (
            (side + 2 * pad - spread * (taps - 1) - 1) // step + 1
            for side, pad, spread, taps, step in zip(x.shape[2:], padding, dilation, self.kernel, stride, strict=True)
        )
        return other.shape == (len(x), self.channels, *sides)


def _plain(weight: Tensor) -> Tensor:
    """Return weights in torch's own order, which can be copied."""
    return weight.to_dense() if weight.is_mkldnn else weight


def available() -> bool:
    """Tell whether this torch, on this processor, has oneDNN's fused convolutions."""
    operators = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")
    return bool(torch.backends.mkldnn.is_available()) and all(hasattr(torch.ops.mkldnn, name) for name in operators)  # type: ignore[no-untyped-call]
