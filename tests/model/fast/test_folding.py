"""Folded graphs against the modules themselves in float64."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.model.fast.folding import FoldedConv, fold, scale_and_shift
from seenet.model.fast.prediction import available, fuse
from seenet.model.seenet import ConvUnit, LocalConv
from tests.model.fast.networks import spread_norms


class Block(nn.Module):
    """A residual block, its shortcut a convolution of its own or the input."""

    def __init__(self, channels: int, *, project: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=2, dilation=2), nn.BatchNorm2d(channels)
        self.short = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y += self.short(x)
        return F.relu(y)


class Unruly(nn.Module):
    """What must be left alone: a convolution called twice, one looked at before its norm, a norm of the batch's own statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.seen, self.last = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.norm, self.batch = nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.twice(self.twice(x)))
        before = self.seen(x)
        return self.batch(self.last(self.norm(before) + before))


class Lasting(nn.Module):
    """Sums whose parts are wanted again after them: nothing may be written into these."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        first = self.one(x)
        view = first[:, :2]
        late = self.three(first)
        total = F.relu(self.two(x) + first)
        return total + F.relu(late + total) + torch.cat([view, view], 1)


class Winding(nn.Module):
    """It looks at its input's size in Python, so that torch.fx cannot follow it; its parts can be folded all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.ReLU6(), nn.Dropout())

    def forward(self, x: Tensor) -> Tensor:
        return self.unit(x if x.shape[-1] > 3 else F.pad(x, (1, 1)))


MODULES = {
    "unit": lambda: ConvUnit(4, 6, 3, dilation=2),
    "local": lambda: LocalConv(4, 7),
    "local, depthwise": lambda: LocalConv(4, 3, depthwise=True),
    "block": lambda: Block(4, project=False),
    "projected": lambda: nn.Sequential(Block(4, project=True), Block(4, project=False), Block(4, project=False)),
    "norm with activation": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), BatchNormAct2d(6, act_layer=nn.Hardswish)),
    "norm with another": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), BatchNormAct2d(6, act_layer=nn.Tanh)),
    "two norms": lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False), nn.SiLU()),
    "same": lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding="same"), nn.BatchNorm2d(6)),
    "reflected": lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6)),
    "unruly": Unruly,
    "lasting": Lasting,
    "winding": Winding,
}


def made(name: str) -> nn.Module:
    torch.manual_seed(1)
    module = MODULES[name]().eval()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.track_running_stats:
            spread_norms(norm)
    return module


@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=pytest.mark.skipif(not available(), reason="no oneDNN here"))])
@pytest.mark.parametrize("name", MODULES)
def test_answers_as_the_module(name: str, fused: bool) -> None:
    module = made(name)
    root = nn.Sequential(fold(copy.deepcopy(module)))
    if fused:
        fuse(root)
    for size in ((2, 4, 9, 7), (1, 4, 12, 5), (1, 4, 12, 5), (1, 4, 12, 5), (3, 4, 9, 7)):
        images = torch.randn(size, generator=torch.Generator().manual_seed(2))
        kept = images.clone()
        with torch.no_grad():
            expected, found = copy.deepcopy(module).double()(images.double()), root(images)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert torch.equal(images, kept)


@pytest.mark.parametrize(("name", "norms"), [("unit", 0), ("local", 0), ("projected", 0), ("winding", 0), ("unruly", 3), ("same", 1)])
def test_norms_that_are_left(name: str, norms: int) -> None:
    folded = fold(made(name))
    calls = [node for part in folded.modules() if isinstance(part, torch.fx.GraphModule) for node in part.graph.nodes]
    names = [type(part.get_submodule(str(node.target))) for part in [folded] for node in calls if node.op == "call_module"]
    assert sum(kind is nn.BatchNorm2d for kind in names) == norms


def test_a_conv_unit_becomes_one_convolution() -> None:
    assert isinstance(fold(made("unit")), FoldedConv)


def test_scale_and_shift() -> None:
    norm = nn.BatchNorm2d(5)
    spread_norms(norm)
    scale, shift = scale_and_shift(norm.eval())
    x = torch.randn(3, 5, 2, 2, dtype=torch.float64)
    assert scale.dtype == shift.dtype == torch.float64
    torch.testing.assert_close(copy.deepcopy(norm).double()(x), x * scale[:, None, None] + shift[:, None, None], rtol=1e-12, atol=1e-12)
