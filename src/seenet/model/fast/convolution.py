"""One convolution of a folded network with all that follows it at each point: bias, a sum with another tensor, an activation."""

from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.model.depthwise import DepthwiseConv2d

CONVOLUTIONS = (nn.Conv2d, DepthwiseConv2d, Conv2dSame)
"""Those whose forward pass is known; a child of theirs may do anything."""
ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Hardswish: ("hardswish", []),
    nn.SiLU: ("swish", []),
}
"""What oneDNN calls them, with their numbers. Its tanh and sigmoid are left out: they are off by 1e-5 and more."""


class FoldedConv(nn.Module):
    """activation(convolution(x) + bias + other): N x C x h x w -> N x O x h' x w', in plain torch.

    `other`, of the output's shape, may be left out. Where `overwrites` is set its memory may be taken for the result. `same` pads as
    TensorFlow does, by the size of x.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.register_buffer("weight", conv.weight.detach())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        self.same = isinstance(conv, Conv2dSame)
        self.padding: Any = (0, 0) if self.same else conv.padding
        self.activation: nn.Module | None = None
        self.overwrites = False

    def scale(self, factor: Tensor, shift: Tensor | None = None) -> None:
        """Multiply each output channel, before the activation, by its factor (float64), then add its shift to it."""
        weight = torch.empty_like(self.weight, memory_format=torch.channels_last)
        # By parts: the float64 copy of the largest kernel would stand in the peak of memory.
        for part in range(0, len(weight), 64):
            rows = slice(part, part + 64)
            weight[rows] = self.weight[rows] * factor[rows, None, None, None]
        self.weight = weight
        if self.bias is not None or shift is not None:
            bias = torch.zeros_like(factor) if self.bias is None else self.bias * factor
            self.bias = (bias if shift is None else bias + shift).to(weight.dtype)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        y = F.conv2d(self.padded(x), self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return finished(y, other, self.activation)

    def padded(self, x: Tensor) -> Tensor:
        """x with what `same` adds to it."""
        return pad_same(x, list(self.weight.shape[-2:]), list(self.stride), list(self.dilation)) if self.same else x


def finished(y: Tensor, other: Tensor | None, activation: nn.Module | None) -> Tensor:
    """activation(y + other), in y's own memory where it is the sum's."""
    if other is not None:
        y = y.add_(other) if other.shape == y.shape else y + other
    return y if activation is None else activation(y)


class FusedConv(nn.Module):
    """The same by oneDNN in one pass over the output; float32 on the CPU alone.

    From the second of two calls with one size on, the weights lie in the order that the kernel for that size reads; after a call with
    another size plainly again, since oneDNN would reorder them in every call, slowly. They are there once. Several threads may call one:
    size and weights change together, by one assignment. The operators are torch's own for `torch.compile` and not documented for others:
    `available` asks whether they are there, and whoever uses them compares the result.
    """

    def __init__(self, conv: FoldedConv) -> None:
        super().__init__()
        self.kernel = list(conv.weight.shape[-2:])
        self.same, self.overwrites, self.channels = conv.same, conv.overwrites, len(conv.weight)
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        # Not buffers: torch cannot copy weights in oneDNN's order.
        self.bias = conv.bias
        self.ready: tuple[torch.Size | None, Tensor] = (None, conv.weight)
        """The last call's size, and the weights: in the order for that size, or plain."""
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
        """Whether `other` has the output's very shape, which the fused sum takes for granted."""
        padding, stride, dilation, _ = self.geometry
        sides = (
            (side + 2 * pad - spread * (taps - 1) - 1) // step + 1
            for side, pad, spread, taps, step in zip(x.shape[2:], padding, dilation, self.kernel, stride, strict=True)
        )
        return other.shape == (len(x), self.channels, *sides)


def _plain(weight: Tensor) -> Tensor:
    """The weights in torch's own order, which can be copied."""
    return weight.to_dense() if weight.is_mkldnn else weight


def available() -> bool:
    """Whether this torch, on this processor, has oneDNN's fused convolutions."""
    operators = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")
    return bool(torch.backends.mkldnn.is_available()) and all(hasattr(torch.ops.mkldnn, name) for name in operators)  # type: ignore[no-untyped-call]
