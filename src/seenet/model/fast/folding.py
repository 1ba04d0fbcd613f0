"""Fold batch norms, sums and activations into the convolutions before them, for prediction.

In eval mode a batch norm is y = x s + t with s = gamma / sqrt(var + eps) and t = beta - mean s, so
norm(conv(x)) = conv'(x) + t with every kernel of conv times its s; s, t and the product are
computed in float64.
"""

import copy
import operator
from collections.abc import Sequence
from functools import partial
from inspect import signature
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from timm.layers.padding import pad_same
from torch import Tensor, fx, nn
from torch.fx import Node
from torch.fx.proxy import GraphAppendingTracer
from torch.nn import functional as F

from seenet.model.backbone import Backbone
from seenet.model.depthwise import DepthwiseConv2d
from seenet.model.seenet import LocalConv

CONVOLUTIONS = (nn.Conv2d, DepthwiseConv2d, Conv2dSame)
"""Those whose forward pass is known; a subclass may do anything."""
ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Hardswish: ("hardswish", []),
    nn.SiLU: ("swish", []),
}
"""oneDNN's names of activations, with their numbers; its tanh and sigmoid are off by 1e-5."""
NORMS = (nn.BatchNorm2d, BatchNormAct2d)
SUMS = (operator.add, operator.iadd, torch.add)
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout2d)
"""Modules that pass their input on in eval mode."""


def fold(module: nn.Module) -> nn.Module:
    """Make every convolution of a module in eval mode that can be one a `FoldedConv`.

    Modules of `seenet.model` keep their structure; others are recorded as graphs and, where that
    cannot be done, folded child by child. What is neither stays as it is.

    Returns:
        The module itself, changed inside, or what takes its place. Tensors that are folded are new,
        the others are those of `module`.
    """
    if type(module) in CONVOLUTIONS and _zero_padded(module):
        return FoldedConv(module)  # type: ignore[arg-type]
    if not any(isinstance(part, nn.Conv2d) for part in module.modules()):
        return module
    inner = list(module.modules())[0 if isinstance(module, Backbone) else 1 :]
    if not any(type(part).__module__.startswith("seenet.model.") and not isinstance(part, nn.Conv2d) for part in inner):
        traced = _traced(module)
        if traced is not None:
            return traced
    for name, child in module.named_children():
        setattr(module, name, fold(child))
    return module


class FoldedConv(nn.Module):
    """activation(convolution(x) + bias + other): N x C x h x w -> N x O x h' x w', in plain torch.

    `other`, of the output's shape, may be left out. Where `overwrites` is set its memory may be
    taken for the result. `same` pads as TensorFlow does, by the size of x.
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
        """Multiply each output channel by its factor (float64) and add its shift."""
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
        return add_and_activate(y, other, self.activation)

    def padded(self, x: Tensor) -> Tensor:
        """Pad x by what `same` adds to it."""
        return pad_same(x, list(self.weight.shape[-2:]), list(self.stride), list(self.dilation)) if self.same else x


def add_and_activate(y: Tensor, other: Tensor | None, activation: nn.Module | None) -> Tensor:
    """Return activation(y + other), in y's own memory where that has the sum's shape."""
    if other is not None:
        y = y.add_(other) if other.shape == y.shape else y + other
    return y if activation is None else activation(y)


def scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Return s and t, float64, of a batch norm in eval mode."""
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


class _Recorder(GraphAppendingTracer):
    """Record a pass through one module as a graph, by stand-ins for its tensors.

    Convolutions, and modules that hold none, are single calls. `fx.Tracer` would do the same, but
    replaces `nn.Module.__call__` in the whole process while it traces, which breaks every other
    thread. This replaces `forward` on the module's own parts alone.

    Args:
        root: Its parts are no one else's. What is recorded is in `graph`.

    Raises:
        Exception: whatever the module raises that meets a stand-in for a tensor.
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__(fx.Graph())
        self.tensors = {id(tensor): name for name, tensor in (*root.named_parameters(), *root.named_buffers())}
        leaves = {name: part for name, part in root.named_modules() if name and _is_leaf(part)}
        before = {name: part.__dict__["forward"] for name, part in leaves.items() if "forward" in part.__dict__}
        wanted = [one for one in signature(root.forward).parameters.values() if one.default is one.empty]
        try:
            for name, part in leaves.items():
                part.__dict__["forward"] = partial(self._call, name)
            out = root.forward(*(self.create_proxy("placeholder", one.name, (), {}) for one in wanted))
            self.create_node("output", "output", (self.create_arg(out),), {})
        finally:
            for name, part in leaves.items():
                del part.__dict__["forward"]
                part.__dict__.update({"forward": before[name]} if name in before else {})

    def create_arg(self, a: Any) -> Any:
        """Name the module's tensors; leave all else to the base class."""
        if isinstance(a, Tensor):
            return self.create_node("get_attr", self.tensors[id(a)], (), {})
        return super().create_arg(a)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.create_proxy("call_module", name, args, kwargs)


def _is_leaf(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) or not any(isinstance(part, nn.Conv2d) for part in module.modules())


def _traced(module: nn.Module) -> nn.Module | None:
    """Return a module's folded graph, or its one convolution; None where it cannot be recorded."""
    try:
        graph = fx.GraphModule(module, _Recorder(module).graph)
    except Exception:  # of a module that meets a stand-in for a tensor
        return None
    _Folding(graph).run()
    graph.graph.lint()
    graph.recompile()
    graph.delete_all_unused_submodules()
    nodes = [node for node in graph.graph.nodes if node.op not in ("placeholder", "output")]
    if len(nodes) == 1 and nodes[0].op == "call_module" and len(nodes[0].args) == 1:
        only: nn.Module = graph.get_submodule(nodes[0].target)
        return only
    return graph


class _Folding:
    """Fold one graph in the order of the pass: norms, sums, activations into what is before them."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module, self.graph = module, module.graph

    def run(self) -> None:
        names = [node.target for node in self.graph.nodes if node.op == "call_module"]
        for name in dict.fromkeys(names):
            found: Any = self.module.get_submodule(name)
            # A convolution that is called twice, or under two names, would be folded twice.
            once = sum(self.module.get_submodule(other) is found for other in names) == 1
            if once and type(found) in CONVOLUTIONS and _zero_padded(found):
                self.module.set_submodule(name, FoldedConv(found))
        for node in list(self.graph.nodes):
            if node.op == "call_module":
                part = self.module.get_submodule(node.target)
                if isinstance(part, IDENTITIES) and not part.training:
                    self._replace(node, node.args[0])
                elif type(part) in NORMS and _uses_running_statistics(part):
                    self._norm(node, part)
                elif type(part) in ACTIVATIONS:
                    self._activation(node, type(part))
            elif node.op == "call_function" and node.target in SUMS:
                self._sum(node)
            elif node.op == "call_function" and node.target in (F.relu, torch.relu) and len(node.args) == 1:
                self._activation(node, nn.ReLU)
        order = {node: place for place, node in enumerate(self.graph.nodes)}
        for node in order:
            conv = self._conv(node)
            if conv is not None and len(node.args) == 2:
                conv.overwrites = self._is_last(node, node.args[1], order)

    def _norm(self, node: Any, norm: Any) -> None:
        conv = self._open(node.args[0])
        if conv is None:
            return
        before: Any = node.args[0]
        factor, shift = scale_and_shift(norm)
        if len(before.args) == 2:
            other = self._open(before.args[1])
            if other is None or len(before.args[1].args) == 2:
                return
            other.scale(factor)
        conv.scale(factor, shift)
        if isinstance(norm, BatchNormAct2d) and not isinstance(norm.act, nn.Identity):
            if type(norm.act) in ACTIVATIONS:
                conv.activation = _in_place(type(norm.act))
            else:
                node.target = f"{node.target}_act"
                self.module.set_submodule(node.target, norm.act)
                return
        self._replace(node, before)

    def _activation(self, node: Any, kind: type[nn.Module]) -> None:
        conv = self._open(node.args[0])
        if conv is not None:
            conv.activation = _in_place(kind)
            self._replace(node, node.args[0])

    def _sum(self, node: Any) -> None:
        if len(node.args) != 2 or node.kwargs or not all(isinstance(arg, Node) for arg in node.args):
            return
        for one, other in (node.args, node.args[::-1]):
            conv = self._open(one)
            if conv is not None and len(one.args) == 1 and one is not other:
                with self.graph.inserting_before(node):
                    added = self.graph.call_module(one.target, (one.args[0], other))
                self._replace(node, added)
                self.graph.erase_node(one)
                return

    def _open(self, node: Any) -> FoldedConv | None:
        """Return a node's convolution if its output has one user and no activation yet."""
        conv = self._conv(node)
        return conv if conv is not None and len(node.users) == 1 and conv.activation is None else None

    def _conv(self, node: Any) -> FoldedConv | None:
        if not isinstance(node, Node) or node.op != "call_module":
            return None
        part = self.module.get_submodule(str(node.target))
        return part if isinstance(part, FoldedConv) else None

    def _is_last(self, node: Any, other: Any, order: dict[Any, int]) -> bool:
        """Tell whether `other`, a convolution's own output, is read after `node` by nobody."""
        if self._conv(other) is None or other in node.args[:1]:
            return False
        return all(user is node or (self._conv(user) is not None and order[user] < order[node]) for user in other.users)

    def _replace(self, node: Any, instead: Any) -> None:
        node.replace_all_uses_with(instead)
        self.graph.erase_node(node)


def _in_place(kind: Any) -> nn.Module:
    activation: nn.Module = kind(inplace=True)
    return activation


def _zero_padded(conv: Any) -> bool:
    """Tell whether a convolution's padding is zeros, by numbers."""
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _uses_running_statistics(norm: Any) -> bool:
    """Tell whether a norm goes by running statistics, and drops nothing behind them."""
    return not norm.training and norm.running_mean is not None and isinstance(getattr(norm, "drop", None), nn.Identity | None)


class FoldedLocalConv(nn.Module):
    """`LocalConv` (Fig. 4b) folded: norm and ReLU of the sum are in the line that comes last."""

    def __init__(self, local: LocalConv) -> None:
        super().__init__()
        pairs: Any = (local.column_row, local.row_column)
        self.first, self.second = (nn.ModuleList(FoldedConv(line) for line in pair) for pair in pairs)
        factor, shift = scale_and_shift(local.norm)
        last: Any = self.second[1]
        last.scale(factor, shift)
        last.activation, last.overwrites = nn.ReLU(inplace=True), True
        other: Any = self.first[1]
        other.scale(factor)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second[1](self.second[0](x), self.first[1](self.first[0](x)))
        return out


class FoldedConcatConv(nn.Module):
    """A folded 1x1 unit of a concatenation: a convolution a part, added to those before it."""

    def __init__(self, conv: FoldedConv, channels: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for number, weight in enumerate(torch.split(conv.weight, list(channels), dim=1)):
            one = copy.copy(conv)
            # A copy shares its dictionaries with the original otherwise.
            one._buffers = {"weight": weight.contiguous(), "bias": conv.bias if number == 0 else None}
            one._modules = {"activation": conv.activation if number == len(channels) - 1 else None}
            one.overwrites = number > 0
            self.convs.append(one)

    def forward(self, parts: list[Tensor]) -> Tensor:
        total: Tensor = self.convs[0](parts[0])
        for conv, part in zip(self.convs[1:], parts[1:], strict=True):
            total = conv(part, total)
        return total


def fold_local_convs(module: nn.Module) -> None:
    """Replace every `LocalConv` within by a `FoldedLocalConv`."""
    for name, child in module.named_children():
        if isinstance(child, LocalConv):
            setattr(module, name, FoldedLocalConv(child))
        else:
            fold_local_convs(child)


def fold_concatenations(model: Any) -> None:
    """Let the folded units of a `ConcatFreeSeENet` that read a concatenation take its parts."""
    pyramid: Any = model.pyramid
    _, c2, c3, c4 = model.backbone.channels
    channels = [c2]
    for level, stage in ((pyramid.P2, c3), (pyramid.P3, c4), (pyramid.P4, None)):
        for branch in level.branches:
            branch[0] = FoldedConcatConv(branch[0], channels)
        channels = [*channels, level.out_channels - sum(channels), *(() if stage is None else (stage,))]
    reduce: Any = model.reduce
    model.reduce = FoldedConcatConv(reduce, channels)
