"""Backbones: any timm network with four strides that can be dilated, as B1 to B4."""

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
"""timm's hooks (NASNet) leave what they see in the network, where another thread would take it."""


class Backbone(nn.Module):
    """B1 to B4 (the first `levels` of them) of a timm network, with random weights.

    N x C x H x W -> tensors of N x channels[i] x ceil(H / strides[i]) x ceil(W / strides[i]), with
    strides 4, 8, 16, 32 up to `output_stride`. Networks whose stem cannot take a size get zeros to
    the right and below.

    Raises UsageError for a name that timm does not know or cannot dilate.
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
        # Of families that cannot be dilated, or have other stages: whatever they raise.
        except Exception as error:
            raise UsageError(
                f"backbone {name}: timm cannot give four stages at output stride {output_stride} ({_reason(error)}); {OTHERS}"
            ) from None
        if stride_on == "conv1":
            _move_strides(self.body)
        info: Any = self.body.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        expected = tuple(min(stride, output_stride) for stride in (4, 8, 16, 32)[:levels])
        if self.strides != expected:
            raise UsageError(
                f"backbone {name}: stages have strides {self.strides}, expected {expected}; {OTHERS}"
            )
        # A size that nothing divides, or one that every stride does.
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
        """Whether, in training, a stage keeps its input alone and is computed again going back."""
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
        """The body under the names of timm's own network, which stands one deeper in some."""
        children: dict[str, nn.Module] = dict(self.body.named_children())
        whole: nn.Module = self.body
        return next(iter(children.values())) if children.keys() in ({"model"}, {"body"}) else whole

    def stage_modules(self) -> list[list[nn.Module]]:
        """List the modules of B1 (stem included) to B4, in the order of the pass.

        Leaves, and whatever has parameters or buffers of its own beside its children (timm's norm
        with activation, ConvNeXt's block with its layer scale).

        Raises UsageError where the stages of a network are mixed (HRNet).
        """
        network = self.network
        owners = [
            (name.replace(".", "_"), module)
            for name, module in network.named_modules()
            if module is not network and (not list(module.children()) or _own_tensors(module))
        ]
        ends: list[int] = []
        for level in self.body.feature_info.get_dicts():
            prefix = str(level["module"]).replace(".", "_")
            inside = [
                index
                for index, (name, _) in enumerate(owners)
                if name == prefix or name.startswith(f"{prefix}_")
            ]
            if not inside:
                raise UsageError(
                    f"backbone {self.name}: has no modules of its stage {len(ends) + 1} alone; use training.freeze_stages=0"
                )
            ends.append(max(inside) + 1)
        starts = [0, *ends[:-1]]
        return [
            [module for _, module in owners[start:end]]
            for start, end in zip(starts, ends, strict=True)
        ]

    def norms(self) -> list[nn.Module]:
        """List every batch norm of the backbone."""
        return [module for module in self.modules() if isinstance(module, BATCH_NORMS)]

    def _checkpointed_parts(self) -> list[nn.Module]:
        """List the stages and what stands beside them, leaves excepted.

        A stage of EfficientNet is several blocks. The whole body where its stages are no modules of
        their own (HRNet), or where timm's hooks look into them, which must not see a second pass.
        """
        network = self.network
        modules = {
            name.replace(".", "_"): (name, module) for name, module in network.named_modules()
        }
        stages = [
            str(level["module"]).replace(".", "_") for level in self.body.feature_info.get_dicts()
        ]
        if isinstance(self.body, FeatureHookNet) or not modules.keys() >= set(stages):
            return [self.body]
        parents = {modules[stage][0].rpartition(".")[0] for stage in stages}
        beside = [
            child for name in sorted(parents) for child in network.get_submodule(name).children()
        ]
        return [child for child in beside if list(child.children())]

    def _misfit(self, in_channels: int, height: int, width: int) -> str:
        """Say what is wrong with the stages at this size, by a pass of zeros; "" where they fit."""
        was_training = self.body.training
        try:
            with torch.no_grad():
                stages = self.body.eval()(torch.zeros(1, in_channels, height, width))
        except Exception as error:
            return _reason(error)
        finally:
            self.body.train(was_training)
        found = [tuple(stage.shape[1:]) for stage in stages]
        expected = [
            (channels, -(-height // stride), -(-width // stride))
            for channels, stride in zip(self.channels, self.strides, strict=True)
        ]
        return (
            ""
            if found == expected
            else f"at {height} x {width} its stages are {found}, expected {expected}"
        )


def _stages(name: str, **options: Any) -> Any:
    """Return timm's network of these stages, and nothing behind the last of them."""
    body: Any = timm.create_model(name, features_only=True, **options)
    last = str(body.feature_info.module_name()[-1])
    if not last.startswith("blocks."):
        return body
    if isinstance(body, FeatureHookNet):
        # Xception, whose stages end within its blocks.
        return timm.create_model(name, features_only=True, feature_cls="getter", **options)
    # EfficientNet and MobileNet would compute what stands behind the last stage asked for; timm cuts the others itself.
    body.blocks = body.blocks[: int(last.removeprefix("blocks.")) + 1]
    return body


def _reason(error: Exception) -> str:
    """Return an error's first line; of an assertion without words the assertion, as timm has it."""
    line = str(error).strip().partition("\n")[0]
    asserted = [
        frame.line
        for frame in traceback.extract_tb(error.__traceback__)
        if "/timm/" in frame.filename and frame.line
    ]
    return line[:200] or (asserted[-1] if asserted else type(error).__name__)


def _own_tensors(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False)) or any(
        True for _ in module.buffers(recurse=False)
    )


def _move_strides(body: nn.Module) -> None:
    """Let blocks stride on their first 1x1, as in ResNet v1, not (v1.5) on their 3x3."""
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
    """Call `module`; in training keep its inputs alone, and compute the rest again going back."""
    forward = partial(type(module).forward, module)
    if not module.training:
        return forward(*inputs)
    if torch.compiler.is_compiling():
        # The compiler moves statistics once by itself, and takes no context.
        return checkpoint(forward, *inputs, use_reentrant=False)

    def passes() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _kept_statistics(module)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=passes)


@contextmanager
def _kept_statistics(body: nn.Module) -> Iterator[None]:
    """Keep batch norm's statistics in a second pass over the same images."""
    norms = [
        module for module in body.modules() if isinstance(module, BATCH_NORMS) and module.training
    ]
    momenta, counts = (
        [norm.momentum for norm in norms],
        [norm.num_batches_tracked.clone() for norm in norms],
    )  # type: ignore[union-attr]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]
