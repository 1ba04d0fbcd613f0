"""The fastest form of each folded convolution on the CPU, in float32.

A form stands for a `FoldedConv` and is called as one; its tensors are in channels-last memory.
"""

from typing import Any

import torch
from torch import Tensor, nn

from seenet.model.fast import depthwise, fft_conv, winograd
from seenet.model.fast.folded import ACTIVATIONS, FoldedConv, add_and_activate, pad_same

KEPT_BYTES = 40 << 20
"""Larger transformed kernels are not kept: the memory costs more than transforming them again."""


def fuse(module: nn.Module, *, compiled: bool = False) -> None:
    """Replace every float32 `FoldedConv` of a module by its fastest form.

    Args:
        compiled: The module is for `torch.compile`: it calls the forms of this project as they are
            and fuses the other convolutions itself.
    """
    for name, child in module.named_children():
        if not isinstance(child, FoldedConv):
            fuse(child, compiled=compiled)
        elif child.weight.dtype == torch.float32:
            setattr(module, name, _fastest(child, compiled))


def _fastest(conv: Any, compiled: bool) -> nn.Module:
    form: FoldedWinograd | FoldedLine | FoldedDepthwise
    if winograd.WinogradConv2d.fits(conv):
        form = FoldedWinograd(conv)
    elif fft_conv.fits(conv):
        form = FoldedLine(conv)
    elif depthwise.fits(conv) and conv.dilation[0] > depthwise.QUICK_DILATION:
        form = FoldedDepthwise(conv)
    else:
        return conv if compiled else FusedConv(conv)
    if compiled:
        form.forward = torch.compiler.disable(form.forward)  # type: ignore
    return form


def _finish(
    y: Tensor, bias: Tensor | None, other: Tensor | None, activation: nn.Module | None
) -> Tensor:
    """Add the bias, then `other`, and activate, in the memory of y."""
    if bias is not None:
        y.add_(bias[:, None, None])
    return add_and_activate(y, other, activation)


class FoldedWinograd(nn.Module):
    """3x3 of many channels by Winograd's tiles; images that tiles do not fit use `plain`."""

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__()
        self.plain = FusedConv(conv)
        self.weight, self.bias, self.activation = conv.weight, conv.bias, conv.activation
        self.dilation = conv.dilation[0]
        size = 36 * self.weight.shape[0] * self.weight.shape[1] * self.weight.element_size()
        self.kernels = winograd.transform_kernels(self.weight) if size <= KEPT_BYTES else None

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        if winograd.waste(x.shape[2], x.shape[3], self.dilation) > winograd.MOST_WASTE:
            out: Tensor = self.plain(x, other)
            return out
        kernels = winograd.transform_kernels(self.weight) if self.kernels is None else self.kernels
        y = winograd.convolve(x.permute(0, 2, 3, 1).contiguous(), kernels, self.dilation)
        return _finish(y.permute(0, 3, 1, 2), self.bias, other, self.activation)


class FoldedLine(nn.Module):
    """r x 1 or 1 x r through the Fourier transform."""

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__()
        self.vertical = conv.weight.shape[2] > 1
        self.weight = conv.weight.flatten(2).permute(2, 1, 0).contiguous()
        self.bias, self.activation = conv.bias, conv.activation

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        y = fft_conv.convolve_lines(x, self.vertical, self.weight)
        return _finish(y, self.bias, other, self.activation)


class FoldedDepthwise(nn.Module):
    """Depthwise 3x3 with a large dilation as nine products of shifted images."""

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__()
        self.weight = conv.weight.reshape(-1, 9).t().contiguous()
        self.bias, self.activation, self.dilation = conv.bias, conv.activation, conv.dilation[0]

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        y = depthwise.shifted(x.permute(0, 2, 3, 1).contiguous(), self.weight, self.dilation)
        return _finish(y.permute(0, 3, 1, 2), self.bias, other, self.activation)


class FusedConv(nn.Module):
    """A `FoldedConv` by oneDNN, in one pass over the output.

    oneDNN reorders the weights for the size of its input, slowly, so the second of two calls with
    one size keeps the reordered weights in the place of the plain ones, and a call with another
    size restores these. Several threads may call one module: size and weights change together, by
    one assignment.

    The operators are torch's own, for `torch.compile`, and not documented: they may be missing, and
    the caller must compare the results.
    """

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__()
        self.kernel = list(conv.weight.shape[-2:])
        self.same, self.overwrites, self.channels = conv.same, conv.overwrites, len(conv.weight)
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        # Not buffers: torch cannot copy reordered weights.
        self.bias = conv.bias
        self.ready: tuple[torch.Size | None, Tensor] = (None, conv.weight)
        """Size of the last input, and the weights, plain or reordered for that size."""
        self.activation = conv.activation
        self.attribute, self.numbers = (
            ("none", []) if conv.activation is None else ACTIVATIONS[type(conv.activation)]
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "ready": (None, _plain(self.ready[1]))}

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        mkldnn = torch.ops.mkldnn
        if self.same:
            _, stride, dilation, _ = self.geometry
            x = pad_same(x, self.kernel, stride, dilation)
        conv = (self._weight_for(x.shape), self.bias, *self.geometry)
        y: Tensor
        if other is None:
            y = mkldnn._convolution_pointwise(x, *conv, self.attribute, self.numbers, "")
        elif self.attribute not in ("none", "relu") or not self._is_output_shape(x, other):
            y = mkldnn._convolution_pointwise(x, *conv, "none", [], "")
            y = add_and_activate(y, other, self.activation)
        else:
            activation = None if self.attribute == "none" else self.attribute
            after: tuple[Any, ...] = ("add", 1.0, activation, [], "")
            if self.overwrites:
                y = mkldnn._convolution_pointwise_.binary(other, x, *conv, *after)
            else:
                y = mkldnn._convolution_pointwise.binary(x, other, *conv, *after)
        return y

    def _weight_for(self, size: torch.Size) -> Tensor:
        last, weight = self.ready
        if size != last:
            weight = _plain(weight)
        elif not weight.is_mkldnn:
            weight = torch.ops.mkldnn._reorder_convolution_weight(
                weight, *self.geometry, list(size)
            )
        self.ready = (size, weight)
        return weight

    def _is_output_shape(self, x: Tensor, other: Tensor) -> bool:
        """Tell whether `other` has the shape of the output, as the fused sum takes for granted."""
        padding, stride, dilation, _ = self.geometry
        sides = (
            (side + 2 * pad - rate * (taps - 1) - 1) // step + 1
            for side, pad, rate, taps, step in zip(
                x.shape[2:], padding, dilation, self.kernel, stride, strict=True
            )
        )
        return other.shape == (len(x), self.channels, *sides)


def _plain(weight: Tensor) -> Tensor:
    """Return weights in torch's own order, which can be copied."""
    return weight.to_dense() if weight.is_mkldnn else weight
