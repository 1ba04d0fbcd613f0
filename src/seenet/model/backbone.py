"""Backbones: timm networks with four stages that can be dilated, as B1 to B4."""

import threading
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import timm
import torch
from timm.models import FeatureHookNet
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seenet.core.errors import UsageError, nearest

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
OTHERS = "try resnet50, convnext_tiny, or tf_efficientnet_lite0"
HOOKS = threading.Lock()
"""timm's hooks (NASNet) store features in the network, where another thread overwrites them."""


class Backbone(nn.Module):
    """The stages B1 to B4 of a timm network, with random weights.

    N x C x H x W -> a tensor N x channels[i] x ceil(H / strides[i]) x ceil(W / strides[i]) per
    stage; the strides are 4, 8, 16, 32, but at most `output_stride`. Networks whose stem takes
    only some sizes get zeros to the right and below.

    Args:
        name: A name of timm's.
        stride_on: "conv1" for ResNet v1, "conv2" for v1.5.
        levels: Number of stages; the later ones are left out.

    Raises UsageError where timm does not know the name or cannot dilate the network.
    """

    def __init__(
        self,
        name: str,
        *,
        output_stride: int = 8,
        in_channels: int = 3,
        stride_on: str = "conv2",
        levels: int = 4,
    ) -> None:
        super().__init__()
        self.name, self.stride_on = name, stride_on
        if not timm.is_model(name):
            raise UsageError(
                f"backbone {name}: unknown to timm; {nearest(name, timm.list_models())}"
            )
        self.body: Any
        try:
            self.body = _stages(
                name,
                output_stride=output_stride,
                out_indices=(-4, -3, -2, -1)[:levels],
                in_chans=in_channels,
            )
        except Exception as error:  # timm has no common error for what it cannot dilate
            raise UsageError(
                f"backbone {name}: timm cannot build four stages at output stride {output_stride} "
                f"({_reason(error)}); {OTHERS}"
            ) from None
        if stride_on == "conv1":
            _move_strides(self.body)
        info: Any = self.body.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        expected = tuple(min(stride, output_stride) for stride in (4, 8, 16, 32)[:levels])
        if self.strides != expected:
            raise UsageError(
                f"backbone {name}: strides of the stages are {self.strides}, "
                f"expected {expected}; {OTHERS}"
            )
        # First a size that no stride divides, then one that all divide.
        self.pad_multiple = 1 if not self._misfit(in_channels, 37, 35) else 32
        if self.pad_multiple > 1 and (misfit := self._misfit(in_channels, 64, 96)):
            raise UsageError(
                f"backbone {name}: does not take pictures of any size ({misfit}); {OTHERS}"
            )

    def forward(self, images: Tensor) -> list[Tensor]:
        if self.pad_multiple > 1:
            height, width = images.shape[-2:]
            images = F.pad(images, (0, -width % self.pad_multiple, 0, -height % self.pad_multiple))
        with HOOKS if isinstance(self.body, FeatureHookNet) else nullcontext():
            stages: list[Tensor] = self.body(images)
        return stages

    @property
    def recompute(self) -> bool:
        """Whether training keeps only the input of each stage and computes the rest again."""
        return any("forward" in vars(part) for part in self._checkpointed_parts())

    @recompute.setter
    def recompute(self, value: bool) -> None:
        part: Any
        for part in self._checkpointed_parts():
            if value:
                part.forward = partial(_checkpointed, part)
            else:
                vars(part).pop("forward", None)

    @property
    def network(self) -> nn.Module:
        """The body under the names of timm's own network, which some bodies wrap once more."""
        children: dict[str, nn.Module] = dict(self.body.named_children())
        body: nn.Module = self.body
        return next(iter(children.values())) if children.keys() in ({"model"}, {"body"}) else body

    def stage_modules(self) -> list[list[nn.Module]]:
        """List the modules of B1 (with the stem) to B4, in the order of the pass.

        Leaves, and modules with parameters or buffers of their own beside their children (timm's
        norm with activation, ConvNeXt's block with its layer scale).

        Raises UsageError where the stages of a network are interleaved (HRNet).
        """
        modules = [
            (name.replace(".", "_"), module)
            for name, module in self.network.named_modules()
            if name
            and (
                not list(module.children())
                or [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            )
        ]
        stages: list[list[nn.Module]] = []
        start = 0
        for prefix in self._stage_names():
            ends = [
                index
                for index, (name, _) in enumerate(modules, start=1)
                if name == prefix or name.startswith(f"{prefix}_")
            ]
            if not ends:
                raise UsageError(
                    f"backbone {self.name}: stage {len(stages) + 1} has no modules of its own; "
                    "use training.freeze_stages=0"
                )
            stages.append([module for _, module in modules[start : ends[-1]]])
            start = ends[-1]
        return stages

    def norms(self) -> list[nn.Module]:
        """List every batch norm of the backbone."""
        return [module for module in self.modules() if isinstance(module, BATCH_NORMS)]

    def _stage_names(self) -> list[str]:
        """List the modules that end the stages, with underscores as `features_only` joins names."""
        return [
            str(stage["module"]).replace(".", "_") for stage in self.body.feature_info.get_dicts()
        ]

    def _checkpointed_parts(self) -> list[nn.Module]:
        """List the stages and their siblings, without leaves.

        A stage of EfficientNet is several siblings. The whole body where its stages are not modules
        (HRNet), or where timm's hooks read them: they must not see the second pass.
        """
        names = {name.replace(".", "_"): name for name, _ in self.network.named_modules()}
        stages = self._stage_names()
        if isinstance(self.body, FeatureHookNet) or not names.keys() >= set(stages):
            return [self.body]
        parents = {names[stage].rpartition(".")[0] for stage in stages}
        siblings = [
            child
            for name in sorted(parents)
            for child in self.network.get_submodule(name).children()
        ]
        return [child for child in siblings if list(child.children())]

    def _misfit(self, in_channels: int, height: int, width: int) -> str:
        """Describe what is wrong with the stages of an image of this size; "" where they fit."""
        try:
            with torch.no_grad():
                stages = self.body.eval()(torch.zeros(1, in_channels, height, width))
        except Exception as error:
            return _reason(error)
        finally:
            self.body.train()
        shapes = [tuple(stage.shape[1:]) for stage in stages]
        expected = [
            (channels, -(-height // stride), -(-width // stride))
            for channels, stride in zip(self.channels, self.strides, strict=True)
        ]
        if shapes == expected:
            return ""
        return f"at {height} x {width} its stages are {shapes}, expected {expected}"


def _stages(name: str, **options: Any) -> Any:
    """Build timm's network of these stages, without the layers behind the last of them."""
    body: Any = timm.create_model(name, features_only=True, **options)
    last = str(body.feature_info.module_name()[-1])
    if not last.startswith("blocks."):
        return body
    if isinstance(body, FeatureHookNet):
        # Xception, whose stages end within its blocks.
        return timm.create_model(name, features_only=True, feature_cls="getter", **options)
    # timm cuts other networks itself, but not the blocks of EfficientNet and MobileNet.
    body.blocks = body.blocks[: int(last.removeprefix("blocks.")) + 1]
    return body


def _reason(error: Exception) -> str:
    """Return an error's first line; of an assertion without a message, its code in timm."""
    line = str(error).strip().partition("\n")[0]
    asserted = [
        frame.line
        for frame in traceback.extract_tb(error.__traceback__)
        if "/timm/" in frame.filename and frame.line
    ]
    return line[:200] or (asserted[-1] if asserted else type(error).__name__)


def _move_strides(body: nn.Module) -> None:
    """Let each block stride on its first 1x1, as in ResNet v1, not on its 3x3 (v1.5)."""
    for module in body.modules():
        conv1, conv2 = getattr(module, "conv1", None), getattr(module, "conv2", None)
        if (
            hasattr(module, "conv3")
            and isinstance(conv1, nn.Conv2d)
            and isinstance(conv2, nn.Conv2d)
            and conv2.stride != (1, 1)
        ):
            conv1.stride, conv2.stride = conv2.stride, (1, 1)


def _checkpointed(module: nn.Module, *inputs: Any) -> Any:
    """Call a module; in training keep only its inputs, and compute the rest again going back."""
    forward = partial(type(module).forward, module)
    if not module.training:
        return forward(*inputs)
    if torch.compiler.is_compiling():
        # The compiler updates the statistics once by itself, and takes no contexts.
        return checkpoint(forward, *inputs, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _kept_statistics(module)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _kept_statistics(body: nn.Module) -> Iterator[None]:
    """Keep the statistics of batch norm during a second pass over the same images."""
    norms: list[Any] = [
        module for module in body.modules() if isinstance(module, BATCH_NORMS) and module.training
    ]
    before = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
