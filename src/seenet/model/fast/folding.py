"""Batch norms folded into the convolutions before them, activations and sums into the convolutions whose output they take.

In eval mode a batch norm is y = x s + t with s = gamma / sqrt(var + eps) and t = beta - mean s, so norm(conv(x)) = conv'(x) + t with every
kernel of conv times its s; s, t and the product are computed in float64.
"""

import operator
from functools import partial
from inspect import signature
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, fx, nn
from torch.fx import Node
from torch.fx.proxy import GraphAppendingTracer
from torch.nn import functional as F

from seenet.model.backbone import Backbone
from seenet.model.fast.convolution import ACTIVATIONS, CONVOLUTIONS, FoldedConv

NORMS = (nn.BatchNorm2d, BatchNormAct2d)
SUMS = (operator.add, operator.iadd, torch.add)
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
"""What passes its input on in eval mode."""


def fold(module: nn.Module) -> nn.Module:
    """The module in eval mode with every convolution that can be a `FoldedConv`: itself, changed inside, or what takes its place.

    Modules of `seenet.model` keep their structure; others are recorded as graphs and, where that cannot be done, folded child by child.
    What is neither stays as it is. Tensors that are folded are new, the others are those of `module`.
    """
    if type(module) in CONVOLUTIONS and _plain(module):
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


def scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """s and t, float64, of a batch norm in eval mode."""
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


class _Recorder(GraphAppendingTracer):
    """Record a pass through one module as a graph, by stand-ins for its tensors.

    Convolutions, and modules that hold none, are single calls. `fx.Tracer` would do the same, but replaces `nn.Module.__call__` in the
    whole process while it traces, which breaks every other thread. This replaces `forward` on the module's own parts alone.

    Args:
        root: Its parts are no one else's. What is recorded is in `graph`.

    Raises whatever the module raises that meets a stand-in for a tensor.
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
        """As the base class, and tensors of the module by their names."""
        if isinstance(a, Tensor):
            return self.create_node("get_attr", self.tensors[id(a)], (), {})
        return super().create_arg(a)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.create_proxy("call_module", name, args, kwargs)


def _is_leaf(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) or not any(isinstance(part, nn.Conv2d) for part in module.modules())


def _traced(module: nn.Module) -> nn.Module | None:
    """The module's folded graph, or the one convolution that it is; None where it cannot be recorded."""
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
    """One graph's nodes in the order of the pass: each norm, sum and activation goes into the convolution before it, if it can."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module, self.graph = module, module.graph

    def run(self) -> None:
        names = [node.target for node in self.graph.nodes if node.op == "call_module"]
        for name in dict.fromkeys(names):
            found: Any = self.module.get_submodule(name)
            # A convolution that is called twice, or under two names, would be folded twice.
            if type(found) in CONVOLUTIONS and _plain(found) and sum(self.module.get_submodule(other) is found for other in names) == 1:
                self.module.set_submodule(name, FoldedConv(found))
        for node in list(self.graph.nodes):
            if node.op == "call_module":
                part = self.module.get_submodule(node.target)
                if isinstance(part, NOTHING) and not part.training:
                    self._replace(node, node.args[0])
                elif type(part) in NORMS and _settled(part):
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
        """The convolution of a node whose output goes to one place alone and has no activation yet."""
        conv = self._conv(node)
        return conv if conv is not None and len(node.users) == 1 and conv.activation is None else None

    def _conv(self, node: Any) -> FoldedConv | None:
        if not isinstance(node, Node) or node.op != "call_module":
            return None
        part = self.module.get_submodule(str(node.target))
        return part if isinstance(part, FoldedConv) else None

    def _is_last(self, node: Any, other: Any, order: dict[Any, int]) -> bool:
        """Whether `other`, a convolution's own output, is looked at after `node` by nobody, not even through a view."""
        if self._conv(other) is None or other in node.args[:1]:
            return False
        return all(user is node or (self._conv(user) is not None and order[user] < order[node]) for user in other.users)

    def _replace(self, node: Any, instead: Any) -> None:
        node.replace_all_uses_with(instead)
        self.graph.erase_node(node)


def _in_place(kind: Any) -> nn.Module:
    activation: nn.Module = kind(inplace=True)
    return activation


def _plain(conv: Any) -> bool:
    """Whether its padding is zeros, by numbers."""
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _settled(norm: Any) -> bool:
    """Whether it goes by running statistics, and drops nothing behind them."""
    return not norm.training and norm.running_mean is not None and isinstance(getattr(norm, "drop", None), nn.Identity | None)
