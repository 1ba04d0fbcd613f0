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


class _Unchanged:
    """A tensor as it is now. torch compares versions itself, but not where hooks take what is saved."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._version = tensor, tensor._version

    def take(self) -> Tensor:
        if self._tensor._version != self._version:
            shape = "x".join(map(str, self._tensor.shape))
            raise RuntimeError(f"a tensor of {shape} that the backward pass needs has been modified by an in-place operation")
        return self._tensor


class _Normed:
    """What one norm gave in this forward pass, and how to have it again."""

    def __init__(self, norm: nn.BatchNorm2d, x: Tensor, out: Tensor) -> None:
        self._inputs = [_Unchanged(tensor.detach()) for tensor in (x, norm.weight, norm.bias)]
        self._eps = norm.eps
        self.version, self.points = out._version, out.numel()
        self.relu = False
        self.uses = 0
        self._value: Tensor | None = None

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor that begins where the output does is the output as it is known, or a view of all of it."""
        return tensor._version == self.version and tensor.numel() == self.points

    def take(self) -> Tensor:
        """The output, for one of its uses; held from the first of them in a backward pass to the last."""
        value = self._value
        if value is None:
            x, weight, bias = (one.take() for one in self._inputs)
            with torch.no_grad():
                value = F.batch_norm(x, None, None, weight, bias, training=True, eps=self._eps)
                value = value.relu_() if self.relu else value
        self.uses -= 1
        self._value = value if self.uses > 0 else None
        return value


@contextmanager
def recomputed_norms(model: nn.Module) -> Iterator[None]:
    """In a forward pass within, `nn.BatchNorm2d` in training, alone or with an in-place `nn.ReLU` behind it, leaves its output to be
    computed again. Gradients are bit for bit the same; other norms and activations keep what they keep.

    Raises RuntimeError in the backward pass where a tensor that it needs was written to (not through `.data`, which nothing tells).
    """
    known: dict[Any, tuple[_Normed, Any]] = {}

    def after_norm(norm: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        # In half precision a norm without weights rounds otherwise where it keeps no running statistics.
        usual = inputs and norm.affine and "forward" not in vars(norm)
        if usual and norm.training and out.requires_grad and out.dtype == inputs[0].dtype:
            place = _place(out)
            # This memory is the output's for as long as it lives.
            known[place] = _Normed(norm, inputs[0], out), weakref.ref(out, lambda _: known.pop(place, None))

    def find(tensor: Tensor) -> _Normed | None:
        normed, _ = known.get(_place(tensor), (None, None))
        return normed if normed is not None and normed.holds(tensor) else None

    def before_relu(relu: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        normed = find(inputs[0]) if inputs else None
        if relu.inplace and normed is not None and not normed.uses:
            normed.relu = True
            normed.version += 1

    def pack(tensor: Tensor) -> Any:
        normed = find(tensor)
        if normed is None:
            return _Unchanged(tensor)
        normed.uses += 1
        return normed, tensor.size(), tensor.stride()

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, _Unchanged):
            return kept.take()
        normed, size, stride = kept
        value: Tensor = normed.take()
        return value.as_strided(size, stride)

    modules = list(model.modules())
    # First of a norm's hooks: what others make of its output is another tensor, or another version.
    norms = [module.register_forward_hook(after_norm, prepend=True) for module in modules if type(module) is nn.BatchNorm2d]
    relus = [module.register_forward_pre_hook(before_relu) for module in modules if type(module) is nn.ReLU]
    try:
        with saved_tensors_hooks(pack, unpack):
            yield
    finally:
        for hook in (*norms, *relus):
            hook.remove()


def _place(tensor: Tensor) -> Any:
    if tensor.layout is not torch.strided:
        return None
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.dtype
