"""Less memory in training: what a batch norm and the ReLU behind it gave is computed again where the backward pass asks for it.

The norm keeps its input for its own gradient anyway, so the convolution behind it and the ReLU need not keep a second tensor of that size:
the same operations on the same input give the same bits. After Pleiss, Chen, Huang, Li, van der Maaten and Weinberger, "Memory-Efficient
Implementation of DenseNets" (2017).
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F


class _Normed:
    """What one norm gave in this forward pass, and how to have it again."""

    def __init__(self, norm: nn.BatchNorm2d, x: Tensor, out: Tensor) -> None:
        self.norm, self.x = norm, x.detach()
        self.version, self.points = out._version, out.numel()
        self.relu = False
        self.uses = 0
        self._value: Tensor | None = None

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor at the output's address is the output as it is known, or a view of all of it."""
        return tensor._version == self.version and tensor.numel() == self.points

    def take(self) -> Tensor:
        """The output, for one of its uses; held from the first of them to the last, which a backward pass takes soon after each other."""
        value = self._value
        if value is None:
            with torch.no_grad():
                value = F.batch_norm(self.x, None, None, self.norm.weight, self.norm.bias, training=True, eps=self.norm.eps)
                value = value.relu_() if self.relu else value
        self.uses -= 1
        self._value = value if self.uses > 0 else None
        return value


@contextmanager
def recomputed_norms(model: nn.Module) -> Iterator[None]:
    """In a forward pass within, `nn.BatchNorm2d` in training, alone or with an in-place `nn.ReLU` behind it, leaves its output to be
    computed again. Gradients are bit for bit the same; no other kind of norm or activation is touched.
    """
    known: dict[int, tuple[_Normed, Any]] = {}

    def after_norm(norm: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        if norm.training and out.requires_grad and out.dtype == inputs[0].dtype:
            address = out.data_ptr()
            # Memory is met by its address, which is this output's for as long as it lives.
            known[address] = _Normed(norm, inputs[0], out), weakref.ref(out, lambda _: known.pop(address, None))

    def find(tensor: Tensor) -> _Normed | None:
        normed, _ = known.get(tensor.data_ptr(), (None, None))
        return normed if normed is not None and normed.holds(tensor) else None

    def before_relu(relu: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        normed = find(inputs[0])
        if relu.inplace and normed is not None and not normed.uses:
            normed.relu = True
            normed.version += 1

    def pack(tensor: Tensor) -> Any:
        normed = find(tensor)
        if normed is None:
            return tensor
        normed.uses += 1
        return normed, tensor.size(), tensor.stride()

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        normed, size, stride = kept
        value: Tensor = normed.take()
        return value.as_strided(size, stride)

    norms = [module.register_forward_hook(after_norm) for module in model.modules() if type(module) is nn.BatchNorm2d]
    relus = [module.register_forward_pre_hook(before_relu) for module in model.modules() if type(module) is nn.ReLU]
    try:
        with saved_tensors_hooks(pack, unpack):
            yield
    finally:
        for hook in (*norms, *relus):
            hook.remove()
