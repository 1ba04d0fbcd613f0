"""SeEM and SeEM-FS: structure (Fig. 4), full and sparse sampling (Eq. 1 and 2), gradients against float64."""

import pytest
import torch
from torch import nn

from seenet.model.seem import LocalConv, SeEM, SeEMFS, local_size


def branch_support(module: SeEM, index: int, side: int) -> torch.Tensor:
    """Which input points the centre of one branch's output depends on: the support of the gradient."""
    branch = module.branches[index].double().eval()
    for part in branch.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.uniform_(part.weight, 0.1, 1)  # positive: nothing cancels, no ReLU closes
    image = torch.rand(1, module.branches[index][0][0].in_channels, side, side, dtype=torch.float64, requires_grad=True)
    branch(image)[0, :, side // 2, side // 2].sum().backward()
    assert image.grad is not None
    return image.grad[0].abs().sum(0) > 0


@pytest.mark.parametrize("rates", [(7, 13, 19, 25), (3, 6, 9, 12), (2, 4, 5, 7)])
def test_full_sampling_reaches_every_point(rates: tuple[int, ...]) -> None:
    for index, rate in enumerate(rates):
        side = 2 * (rate + local_size(rate) // 2) + 5
        support = branch_support(SeEMFS(2, rates, width=2), index, side)
        reach = rate + local_size(rate) // 2
        centre = side // 2
        window = support[centre - reach : centre + reach + 1, centre - reach : centre + reach + 1]
        assert window.all()
        assert support.sum() == window.numel()


@pytest.mark.parametrize("rates", [(1, 2, 4, 8), (3, 6, 9, 12)])
def test_sparse_sampling_reaches_nine_points(rates: tuple[int, ...]) -> None:
    for index, rate in enumerate(rates):
        support = branch_support(SeEM(2, rates, width=2), index, 2 * rate + 5)
        centre = rate + 2
        expected = {(centre + i * rate, centre + j * rate) for i in (-1, 0, 1) for j in (-1, 0, 1)}
        assert {tuple(point) for point in support.nonzero().tolist()} == expected


def test_local_size_is_the_smallest_odd_number() -> None:
    for rate in range(1, 40):
        size = local_size(rate)
        assert size % 2 == 1 and size >= rate and size - 2 < rate


def test_rate_one_has_no_local_convolution() -> None:
    first, second, *_ = SeEMFS(4, (1, 2, 4, 8), width=4).branches
    assert not any(isinstance(module, LocalConv) for module in first.modules())
    assert any(isinstance(module, LocalConv) for module in second.modules())


def test_branches_stack_behind_the_input() -> None:
    module = SeEM(6, (1, 2, 4, 8), width=3).eval()
    x = torch.randn(2, 6, 9, 11)
    out = module(x)
    assert out.shape == (2, module.out_channels, 9, 11) == (2, 18, 9, 11)
    torch.testing.assert_close(out[:, :6], x)
    for index, branch in enumerate(module.branches):
        torch.testing.assert_close(out[:, 6 + 3 * index : 9 + 3 * index], branch(x))


def test_branch_is_1x1_depthwise_1x1() -> None:
    for branch, rate in zip(SeEM(6, (1, 2, 4, 8), width=4).branches, (1, 2, 4, 8), strict=True):
        reduce, atrous, fuse = [module for module in branch.modules() if isinstance(module, nn.Conv2d)]
        assert (reduce.kernel_size, reduce.in_channels, reduce.out_channels) == ((1, 1), 6, 4)
        assert (atrous.kernel_size, atrous.dilation, atrous.groups) == ((3, 3), (rate, rate), 4)
        assert (fuse.kernel_size, fuse.groups) == ((1, 1), 1)
        assert all(conv.bias is None for conv in (reduce, atrous, fuse))
        assert sum(isinstance(module, nn.BatchNorm2d) for module in branch.modules()) == 3


def test_local_conv_is_the_sum_of_two_pairs() -> None:
    """Against an r x r kernel put together by hand: the outer products, mixed over the middle channels."""
    local = LocalConv(3, 5).double().eval()
    column, row = local.column_row[0].weight, local.column_row[1].weight
    row2, column2 = local.row_column[0].weight, local.row_column[1].weight
    kernel = torch.einsum("mih,omw->oihw", column[..., 0], row[:, :, 0]) + torch.einsum("miw,omh->oihw", row2[:, :, 0], column2[..., 0])
    x = torch.randn(1, 3, 15, 15, dtype=torch.float64)
    inside = (..., slice(4, -4), slice(4, -4))  # the border differs: each line of a pair pads for itself
    expected = nn.functional.relu(local.norm(nn.functional.conv2d(x, kernel, padding=2)))
    torch.testing.assert_close(local(x)[inside], expected[inside])


@pytest.mark.parametrize("kind", [SeEM, SeEMFS])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_against_float64(kind: type[SeEM], memory_format: torch.memory_format) -> None:
    """In fp32, both memory formats; for the other precisions see tests/training/test_precision.py, where training asks before it trusts."""
    torch.manual_seed(0)
    module = kind(16, (7, 13, 19, 25), width=16)
    reference = kind(16, (7, 13, 19, 25), width=16).double()
    reference.load_state_dict(module.state_dict())
    x = torch.randn(2, 16, 32, 32)
    upstream = torch.randn(2, module.out_channels, 32, 32)
    (module.to(memory_format=memory_format)(x.contiguous(memory_format=memory_format)) * upstream).sum().backward()
    (reference(x.double()) * upstream.double()).sum().backward()
    for (name, found), expected in zip(module.named_parameters(), reference.parameters(), strict=True):
        assert found.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-3, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}")
