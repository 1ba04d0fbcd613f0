"""Folded graphs against the modules themselves in float64."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.model.fast.folding import fold
from seenet.model.fast.fused import fuse
from seenet.model.seenet import ConvUnit, LocalConv
from tests.model.fast.networks import ONEDNN
from tests.model.networks import spread_norms


def conv(channels: int = 4, rate: int = 1) -> nn.Conv2d:
    return nn.Conv2d(4, channels, 3, padding=rate, dilation=rate)


class Block(nn.Module):
    """A residual block; its shortcut is a convolution or the input."""

    def __init__(self, *, project: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = conv(rate=2), nn.BatchNorm2d(4)
        projection = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.short = projection if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y += self.short(x)
        return F.relu(y)


class NotFoldable(nn.Module):
    """A convolution called twice, one read before its norm, a norm of the batch's statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.read, self.last = conv(), conv(), conv()
        self.norm, self.batch = nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.twice(self.twice(x)))
        before = self.read(x)
        return self.batch(self.last(self.norm(before) + before))


class ReadLater(nn.Module):
    """Sums whose terms are read again later: nothing may be written into them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv(), conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        first = self.one(x)
        view = first[:, :2]
        late = self.three(first)
        total = F.relu(self.two(x) + first)
        return total + F.relu(late + total) + torch.cat([view, view], 1)


class NotTraceable(nn.Module):
    """A condition on the input's size, which torch.fx cannot follow, around a unit that it can."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.ReLU6(), nn.Dropout())

    def forward(self, x: Tensor) -> Tensor:
        return self.unit(x if x.shape[-1] > 3 else F.pad(x, (1, 1)))


MODULES = {
    "unit": lambda: ConvUnit(4, 6, 3, dilation=2),
    "local": lambda: LocalConv(4, 7),
    "local, depthwise": lambda: LocalConv(4, 3, depthwise=True),
    "block": lambda: Block(project=False),
    "projected": lambda: nn.Sequential(
        Block(project=True), Block(project=False), Block(project=False)
    ),
    "norm with activation": lambda: nn.Sequential(
        conv(6), BatchNormAct2d(6, act_layer=nn.Hardswish)
    ),
    "norm with tanh": lambda: nn.Sequential(conv(6), BatchNormAct2d(6, act_layer=nn.Tanh)),
    "two norms": lambda: nn.Sequential(
        conv(6), nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False), nn.SiLU()
    ),
    "same": lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding="same"), nn.BatchNorm2d(6)),
    "reflected": lambda: nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6)
    ),
    "not foldable": NotFoldable,
    "read later": ReadLater,
    "not traceable": NotTraceable,
}


def made(name: str) -> nn.Module:
    torch.manual_seed(1)
    return spread_norms(MODULES[name]())


@pytest.mark.parametrize(
    "fused", [False, pytest.param(True, marks=pytest.mark.skipif(not ONEDNN, reason="no oneDNN"))]
)
@pytest.mark.parametrize("name", MODULES)
def test_equal_to_the_module(name: str, fused: bool) -> None:
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


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("unit", 0),
        ("local", 0),
        ("projected", 0),
        ("not traceable", 0),
        ("not foldable", 3),
        ("same", 1),
    ],
)
def test_norms_that_are_left(name: str, count: int) -> None:
    folded = fold(made(name))
    graphs = [part.graph for part in folded.modules() if isinstance(part, torch.fx.GraphModule)]
    calls = [node for graph in graphs for node in graph.nodes if node.op == "call_module"]
    called = [type(folded.get_submodule(str(node.target))) for node in calls]
    assert called.count(nn.BatchNorm2d) == count
