"""Fold batch norms, sums and activations into the convolutions before them, for prediction.

In eval mode a batch norm is y = x s + t (`folded.scale_and_shift`), so norm(conv(x)) is
conv'(x) + t, where each kernel of conv' is that of conv times its s, computed in float64.
"""

import copy
import operator
from functools import partial
from inspect import signature
from typing import Any, TypeGuard

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, fx, nn
from torch.fx import Node
from torch.fx.proxy import GraphAppendingTracer
from torch.nn import functional as F

from seenet.model.backbone import Backbone
from seenet.model.depthwise import DepthwiseConv2d
from seenet.model.fast.folded import (
    ACTIVATIONS,
    FoldedConcatConv,
    FoldedConv,
    FoldedLocalConv,
    scale_and_shift,
)
from seenet.model.seenet import LocalConv

CONVOLUTIONS = (nn.Conv2d, DepthwiseConv2d, Conv2dSame)
"""Convolutions with a known forward pass; a subclass may compute anything."""
NORMS = (nn.BatchNorm2d, BatchNormAct2d)
SUMS = (operator.add, operator.iadd, torch.add)
RELUS = (F.relu, torch.relu)
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout2d)
"""Modules that return their input in eval mode."""


def fold(module: nn.Module) -> nn.Module:
    """Replace the convolutions of a module in eval mode by `FoldedConv`; fold what follows them.

    Modules of `seenet.model` keep their structure; others are recorded as graphs or, where that
    fails, folded child by child. Everything else stays as it is.

    Returns:
        The module itself, changed inside, or its replacement. Folded tensors are new, the others
        are those of `module`.
    """
    if _is_foldable(module):
        return FoldedConv(module)
    if isinstance(module, LocalConv):
        return FoldedLocalConv(module)
    if not any(isinstance(part, nn.Conv2d) for part in module.modules()):
        return module
    # A unit of ours that holds none of ours, such as ConvUnit, is recorded; a backbone is not.
    inner = list(module.modules())[0 if isinstance(module, Backbone) else 1 :]
    if not any(
        type(part).__module__.startswith("seenet.model.") and not isinstance(part, nn.Conv2d)
        for part in inner
    ):
        graph = _folded_graph(module)
        if graph is not None:
            return graph
    for name, child in module.named_children():
        setattr(module, name, fold(child))
    return module


def fold_concatenations(model: Any) -> None:
    """Let the folded 1x1 units of a `ConcatFreeSeENet` take the parts of a concatenation."""
    _, c2, c3, c4 = model.backbone.channels
    channels = [c2]
    for level, stage in zip(model.pyramid.children(), ([c3], [c4], []), strict=True):
        for branch in level.branches:
            branch[0] = FoldedConcatConv(branch[0], channels)
        channels = [*channels, level.out_channels - sum(channels), *stage]
    model.reduce = FoldedConcatConv(model.reduce, channels)


def _folded_graph(module: nn.Module) -> nn.Module | None:
    """Return a module's folded graph, or its only convolution; None where it cannot be recorded."""
    try:
        graph = fx.GraphModule(module, _Recorder(module).graph)
    except Exception:  # of code that a stand-in for a tensor does not satisfy
        return None
    _GraphFolder(graph).run()
    graph.recompile()
    graph.delete_all_unused_submodules()
    nodes = [node for node in graph.graph.nodes if node.op not in ("placeholder", "output")]
    if len(nodes) == 1 and nodes[0].op == "call_module" and len(nodes[0].args) == 1:
        only: nn.Module = graph.get_submodule(nodes[0].target)
        return only
    return graph


class _Recorder(GraphAppendingTracer):
    """Recording of a pass through one module as a graph, with stand-ins for its tensors.

    Convolutions, and modules without any inside, are single calls. `fx.Tracer` would do the same,
    but it replaces `nn.Module.__call__` in the whole process, which breaks every other thread. This
    replaces `forward` of the module's own parts only.

    Args:
        root: The module. No other thread may use its parts.

    Raises:
        Exception: Any, where the module's code does not work with a stand-in for a tensor.
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__(fx.Graph())
        self.tensor_names = {
            id(tensor): name for name, tensor in (*root.named_parameters(), *root.named_buffers())
        }
        leaves = {name: part for name, part in root.named_modules() if name and _is_leaf(part)}
        forwards = {name: vars(part).get("forward") for name, part in leaves.items()}
        inputs = [
            parameter.name
            for parameter in signature(root.forward).parameters.values()
            if parameter.default is parameter.empty
        ]
        try:
            for name, part in leaves.items():
                vars(part)["forward"] = partial(self._call, name)
            out = root.forward(*(self.create_proxy("placeholder", name, (), {}) for name in inputs))
            self.create_node("output", "output", (self.create_arg(out),), {})
        finally:
            for name, part in leaves.items():
                del vars(part)["forward"]
                if forwards[name] is not None:
                    vars(part)["forward"] = forwards[name]

    def create_arg(self, a: Any) -> Any:
        """Refer to the module's tensors by name; leave other arguments to the base class."""
        if isinstance(a, Tensor):
            return self.create_node("get_attr", self.tensor_names[id(a)], (), {})
        return super().create_arg(a)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.create_proxy("call_module", name, args, kwargs)


def _is_leaf(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) or not any(
        isinstance(part, nn.Conv2d) for part in module.modules()
    )


class _GraphFolder:
    """Folding of one graph: norms, sums and activations, in the order of the pass."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module, self.graph = module, module.graph

    def run(self) -> None:
        names = [node.target for node in self.graph.nodes if node.op == "call_module"]
        for name in dict.fromkeys(names):
            conv: Any = self.module.get_submodule(name)
            # A convolution that is called twice, or has two names, would be folded twice.
            once = sum(self.module.get_submodule(other) is conv for other in names) == 1
            if once and _is_foldable(conv):
                self.module.set_submodule(name, FoldedConv(conv))
        for node in list(self.graph.nodes):
            self._fold(node)
        order = {node: place for place, node in enumerate(self.graph.nodes)}
        for node in order:
            module = self._module_of(node)
            if isinstance(module, FoldedConv) and len(node.args) == 2:
                module.overwrites = self._may_overwrite(node, node.args[1], order)

    def _fold(self, node: Any) -> None:
        module, function = self._module_of(node), node.op == "call_function" and node.target
        if isinstance(module, IDENTITIES):
            self._replace(node, node.args[0])
        elif type(module) in NORMS and module.running_mean is not None:
            self._fold_norm(node, module)
        elif type(module) in ACTIVATIONS:
            self._fold_activation(node, type(module))
        elif function in SUMS:
            self._fold_sum(node)
        elif function in RELUS and len(node.args) == 1:
            self._fold_activation(node, nn.ReLU)

    def _fold_norm(self, node: Any, norm: Any) -> None:
        before: Any = node.args[0]
        conv = self._unfinished_conv(before)
        if conv is None:
            return
        factor, shift = scale_and_shift(norm)
        if len(before.args) == 2:  # a sum: the norm scales both of its terms
            other = self._unfinished_conv(before.args[1])
            if other is None or len(before.args[1].args) == 2:
                return
            other.scale(factor)
        conv.scale(factor, shift)
        # What is left of the norm is its activation, which timm's have; a copy, as only modules
        # with one name are deleted where nothing calls them.
        node.target = f"{node.target}_act"
        self.module.set_submodule(node.target, copy.copy(getattr(norm, "act", nn.Identity())))
        self._fold(node)

    def _fold_activation(self, node: Any, kind: Any) -> None:
        if conv := self._unfinished_conv(node.args[0]):
            conv.activation = kind(inplace=True)
            self._replace(node, node.args[0])

    def _fold_sum(self, node: Any) -> None:
        args = node.args
        if len(args) != 2 or node.kwargs or not all(isinstance(arg, Node) for arg in args):
            return
        for term, other in (args, args[::-1]):
            conv = self._unfinished_conv(term)
            if conv is not None and len(term.args) == 1 and term is not other:
                with self.graph.inserting_before(node):
                    added = self.graph.call_module(term.target, (term.args[0], other))
                self._replace(node, added)
                self.graph.erase_node(term)
                return

    def _module_of(self, node: Any) -> Any:
        if isinstance(node, Node) and node.op == "call_module":
            return self.module.get_submodule(str(node.target))
        return None

    def _unfinished_conv(self, node: Any) -> FoldedConv | None:
        """Return a node's convolution if its output has one reader and no activation yet."""
        conv = self._module_of(node)
        if isinstance(conv, FoldedConv) and conv.activation is None and len(node.users) == 1:
            return conv
        return None

    def _may_overwrite(self, node: Any, other: Any, order: dict[Any, int]) -> bool:
        """Tell whether `other` is the output of a convolution that nothing reads after `node`."""
        if not isinstance(self._module_of(other), FoldedConv) or other in node.args[:1]:
            return False
        return all(
            user is node
            or (isinstance(self._module_of(user), FoldedConv) and order[user] < order[node])
            for user in other.users
        )

    def _replace(self, node: Any, instead: Any) -> None:
        node.replace_all_uses_with(instead)
        self.graph.erase_node(node)


def _is_foldable(module: Any) -> TypeGuard[nn.Conv2d]:
    """Tell whether a module is a known convolution, zero-padded by numbers (not by "same")."""
    return (
        type(module) in CONVOLUTIONS
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )
