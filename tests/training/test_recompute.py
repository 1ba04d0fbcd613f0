"""What is computed again has the same bits, is not kept, and is never taken for something else."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from seenet.model import create_model
from seenet.model.fast import use_fast
from seenet.training import recompute
from seenet.training.recompute import recomputed_norms

Case = Callable[[nn.BatchNorm2d, nn.ReLU, Tensor], Tensor]


def unit(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    return relu(norm(x)) ** 2  # type: ignore[no-any-return]


def two_readers(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    y = relu(norm(x))
    return y.permute(0, 2, 3, 1) ** 2 * y.permute(0, 2, 3, 1).exp()


def norm_alone(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    return norm(x) ** 2  # type: ignore[no-any-return]


def read_before_relu(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    y = norm(x)
    return y**2 + nn.ReLU()(y) ** 3


def changed_afterwards(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    y = norm(x)
    y *= 3
    return relu(y) ** 2  # type: ignore[no-any-return]


def part_of_it(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    return relu(norm(x))[:1] ** 2  # type: ignore[no-any-return]


def forgotten(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    total = torch.zeros(())
    for _ in range(4):
        # The memory of the first output is free again for what follows.
        norm(x).sum()
        total = total + ((x * 2) ** 2).mean()
    return total


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", [unit, two_readers, norm_alone, read_before_relu, changed_afterwards, part_of_it, forgotten])
def test_the_gradients_have_the_same_bits(case: Case, layout: Any) -> None:
    found = []
    for context in (recomputed_norms, None):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        conv, norm, relu = net
        x = torch.randn(2, 3, 9, 9).contiguous(memory_format=layout)
        if context:
            with context(net):
                loss = case(norm, relu, conv(x)).sum()  # type: ignore[arg-type]
        else:
            loss = case(norm, relu, conv(x)).sum()  # type: ignore[arg-type]
        loss.backward(retain_graph=True)
        first = [parameter.grad.clone() if parameter.grad is not None else None for parameter in net.parameters()]
        loss.backward()
        found.append([loss.detach(), *first, *(parameter.grad for parameter in net.parameters()), *net.buffers()])
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("fast", [False, True])
def test_of_the_network(fast: bool) -> None:
    torch.manual_seed(0)
    model = create_model("seenet", backbone="resnet18", num_classes=5).train().to(memory_format=torch.channels_last)
    if fast:
        use_fast(model)
    images = torch.randn(2, 3, 96, 64).contiguous(memory_format=torch.channels_last)
    twin = copy.deepcopy(model)
    with recomputed_norms(model):
        out = model(images)
    (out**2).sum().backward()
    (twin(images) ** 2).sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert ours.grad is not None, name
        assert torch.equal(ours.grad, theirs.grad), name  # type: ignore[arg-type]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.buffers(), twin.buffers(), strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_outputs_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []

    def noting(pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]) -> Any:
        def note(tensor: Tensor) -> Any:
            kept.append(pack(tensor))
            return kept[-1]

        return saved_tensors_hooks(note, unpack)

    monkeypatch.setattr(recompute, "saved_tensors_hooks", noting)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 1))
    images = torch.randn(2, 3, 7, 5)
    with recomputed_norms(net):
        net(images)
    pictures = [tensor.shape for tensor in kept if isinstance(tensor, Tensor) and tensor.dim() == 4 and tensor.shape[2:] == (7, 5)]
    assert pictures == [images.shape, (2, 8, 7, 5)]  # the first convolution's input and the norm's


def test_norms_that_do_not_train_are_left_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8).eval(), nn.ReLU(inplace=True))
    net[1].running_mean.fill_(0.5)  # type: ignore[union-attr, operator]
    images = torch.randn(2, 3, 7, 5)
    gradients = []
    for recomputing in (True, False):
        net.zero_grad()
        if recomputing:
            with recomputed_norms(net):
                loss = (net(images) ** 2).sum()
        else:
            loss = (net(images) ** 2).sum()
        loss.backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))  # type: ignore[arg-type]
