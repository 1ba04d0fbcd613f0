"""What is computed again has the same bits, is not kept, and is never taken for something else."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
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


def hooked(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    first = norm.register_forward_hook(lambda _, inputs, out: out * 2 + 1)
    second = norm.register_forward_hook(lambda _, inputs, out: out.mul_(3))
    y = relu(norm(x))
    first.remove()
    second.remove()
    return y**2  # type: ignore[no-any-return]


def replaced(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    norm.forward = lambda images: images * 2 + norm.weight[:, None, None]  # type: ignore[method-assign]
    return relu(norm(x)) ** 2  # type: ignore[no-any-return]


def other_weights(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    y = torch.func.functional_call(norm, {"weight": norm.weight * 3, "bias": norm.bias - 1}, (x,))
    return relu(y) ** 2  # type: ignore[no-any-return]


def twice(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    return relu(norm(relu(norm(x)) ** 2)) ** 2  # type: ignore[no-any-return]


def by_keyword(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    return relu(input=norm(input=x)) ** 2  # type: ignore[no-any-return]


def sparse(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    return torch.sparse.mm(torch.eye(8).to_sparse(), relu(norm(x)).transpose(0, 1).flatten(1)) ** 2


def forgotten(norm: nn.BatchNorm2d, relu: nn.ReLU, x: Tensor) -> Tensor:
    total = torch.zeros(())
    for _ in range(4):
        # The memory of the first output is free again for what follows.
        norm(x).sum()
        total = total + ((x * 2) ** 2).mean()
    return total


CASES = [
    unit, two_readers, norm_alone, read_before_relu, changed_afterwards, part_of_it, hooked, replaced, other_weights, twice, by_keyword,
    sparse, forgotten,
]  # fmt: skip


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CASES)
def test_the_gradients_have_the_same_bits(case: Case, layout: Any) -> None:
    found = []
    for recomputing in (True, False):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        conv, norm, relu = net
        x = torch.randn(2, 3, 9, 9).contiguous(memory_format=layout)
        with recomputed_norms(net) if recomputing else nullcontext():
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
    tensors = [one.take() for one in kept if isinstance(one, recompute._Unchanged)]
    pictures = [tensor.shape for tensor in tensors if tensor.dim() == 4 and tensor.shape[2:] == (7, 5)]
    assert pictures == [images.shape, (2, 8, 7, 5)]  # the first convolution's input and the norm's


def test_norms_that_do_not_train_are_left_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8).eval(), nn.ReLU(inplace=True))
    net[1].running_mean.fill_(0.5)  # type: ignore[union-attr, operator]
    images = torch.randn(2, 3, 7, 5)
    gradients = []
    for context in (recomputed_norms(net), nullcontext()):
        net.zero_grad()
        with context:
            loss = (net(images) ** 2).sum()
        loss.backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kind_of_norm_and_precision(affine: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=affine), nn.ReLU(inplace=True), nn.Conv2d(8, 2, 3))
    images = torch.randn(2, 3, 9, 9)
    gradients = []
    for context in (recomputed_norms(net), nullcontext()):
        net.zero_grad()
        with context, torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = (net(images) ** 2).sum()
        loss.backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))  # type: ignore[arg-type]


def sigmoid_written_to(net: nn.Sequential, images: Tensor) -> Tensor:
    y = net(images).sigmoid()
    z = y * 2
    y.mul_(3)
    return z.sum() + y.sum()


def input_written_to(net: nn.Sequential, images: Tensor) -> Tensor:
    x = net[0](images)
    y = net[2](net[1](x)) ** 2
    x.mul_(5)
    return y.sum() + x.sum()


def weight_written_to(net: nn.Sequential, images: Tensor) -> Tensor:
    loss = (net(images) ** 2).sum()
    with torch.no_grad():
        net[1].weight.mul_(2)  # type: ignore[union-attr, operator]
    return loss


@pytest.mark.parametrize("case", [sigmoid_written_to, input_written_to, weight_written_to])
@pytest.mark.parametrize("recomputing", [True, False])
def test_what_was_written_to_is_an_error_as_in_torch(case: Callable[[nn.Sequential, Tensor], Tensor], recomputing: bool) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    with recomputed_norms(net) if recomputing else nullcontext():
        loss = case(net, torch.randn(2, 3, 7, 5))
    with pytest.raises(RuntimeError, match=r"modified by an in-?place operation"):
        loss.backward()


def test_beside_activation_checkpointing() -> None:
    torch.manual_seed(0)
    model = create_model("seenet", backbone="resnet18", num_classes=5).train()
    images, gradients = torch.randn(2, 3, 64, 64), []
    before = copy.deepcopy(model.state_dict())
    for checkpointing, context in ((True, recomputed_norms(model)), (False, nullcontext())):
        model.load_state_dict(before)
        model.zero_grad()
        model.backbone.recompute = checkpointing
        with context:
            loss = (model(images) ** 2).sum()
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))  # type: ignore[arg-type]
