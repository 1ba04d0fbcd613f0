"""Backbones: any timm network with four strides that can be dilated, as B1 to B4."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from seenet.core.errors import UsageError, nearest


class Backbone(nn.Module):
    """B1 (stride 4), B2 (8), B3 and B4 (8, or up to `output_stride`) of a timm network with random weights; of these the first `levels`.

    N x C x H x W -> tensors of N x channels[i] x ceil(H / strides[i]) x ceil(W / strides[i]). Networks whose stem cannot take a
    size get zeros to the right and below. Raises UsageError for a name timm
    does not know or cannot dilate. `recompute` drops activations in training and computes them again in the backward pass.
    """

    def __init__(self, name: str, *, output_stride: int = 8, in_channels: int = 3, stride_on: str = "conv2", levels: int = 4) -> None:
        super().__init__()
        self.recompute = False
        if not timm.is_model(name):
            raise UsageError(f"backbone {name}: unknown to timm; {nearest(name, timm.list_models())}")
        self.body: Any
        try:
            self.body = timm.create_model(
                name,
                features_only=True,
                output_stride=output_stride,
                out_indices=(-4, -3, -2, -1)[:levels],
                in_chans=in_channels,
            )
        except (NotImplementedError, RuntimeError, TypeError, AssertionError, ValueError) as error:
            raise UsageError(
                f"backbone {name}: timm cannot give four stages at output stride {output_stride} ({error}); "
                "try resnet50, convnext_tiny, or tf_efficientnet_lite0"
            ) from None
        if stride_on == "conv1":
            _move_strides(self.body)
        info: Any = self.body.feature_info
        last = str(info.module_name()[-1])
        if last.startswith("blocks."):
            # EfficientNet and MobileNet would compute what stands behind the last stage asked for; timm cuts the others itself.
            self.body.blocks = self.body.blocks[: int(last.removeprefix("blocks.")) + 1]
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        expected = tuple(min(stride, output_stride) for stride in (4, 8, 16, 32)[:levels])
        if self.strides != expected:
            raise UsageError(f"backbone {name}: stages have strides {self.strides}, expected {expected}")
        self.pad_multiple = 1 if self._takes_any_size(in_channels) else 32

    def forward(self, images: Tensor) -> list[Tensor]:
        if self.pad_multiple > 1:
            height, width = images.shape[-2:]
            images = F.pad(images, (0, -width % self.pad_multiple, 0, -height % self.pad_multiple))
        if self.recompute and self.training:
            stages: list[Tensor] = checkpoint(self.body, images, use_reentrant=False, context_fn=self._passes)
        else:
            stages = self.body(images)
        return stages

    def stage_modules(self) -> list[list[nn.Module]]:
        """The modules of B1 (stem included) to B4, in the order of the pass: leaves, and whatever has parameters or buffers of its own
        beside its children (timm's norm with activation, ConvNeXt's block with its layer scale).
        """
        owners = [
            (name.replace(".", "_"), module)
            for name, module in self.body.named_modules()
            if module is not self.body and (not list(module.children()) or _own_tensors(module))
        ]
        ends = []
        for level in self.body.feature_info.get_dicts():
            prefix = str(level["module"]).replace(".", "_")
            inside = [index for index, (name, _) in enumerate(owners) if name == prefix or name.startswith(f"{prefix}_")]
            ends.append(max(inside) + 1)
        starts = [0, *ends[:-1]]
        return [[module for _, module in owners[start:end]] for start, end in zip(starts, ends, strict=True)]

    def norms(self) -> list[nn.Module]:
        """Every batch norm of the backbone."""
        return [module for module in self.modules() if isinstance(module, _BatchNorm)]

    def _passes(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _kept_statistics(self.body)

    def _takes_any_size(self, in_channels: int) -> bool:
        """Whether grids are ceil(size / stride) at a size that nothing divides; asked of the network itself, without data."""
        was_training = self.body.training
        try:
            with torch.no_grad():
                stages = self.body.eval()(torch.zeros(1, in_channels, 37, 35))
        except RuntimeError:
            return False
        finally:
            self.body.train(was_training)
        return all(
            tuple(stage.shape[-2:]) == (-(-37 // stride), -(-35 // stride)) for stage, stride in zip(stages, self.strides, strict=True)
        )


def _own_tensors(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False))


def _move_strides(body: nn.Module) -> None:
    """ResNet v1: the first unit of a subsampling block strides on its first 1x1, not (v1.5) on its 3x3."""
    for module in body.modules():
        conv1, conv2 = getattr(module, "conv1", None), getattr(module, "conv2", None)
        if hasattr(module, "conv3") and isinstance(conv1, nn.Conv2d) and isinstance(conv2, nn.Conv2d) and conv2.stride != (1, 1):
            conv1.stride, conv2.stride = conv2.stride, (1, 1)


@contextmanager
def _kept_statistics(body: nn.Module) -> Iterator[None]:
    """The second pass over the same images must not move batch norm's statistics again."""
    norms = [module for module in body.modules() if isinstance(module, _BatchNorm) and module.training]
    momenta, counts = [norm.momentum for norm in norms], [norm.num_batches_tracked.clone() for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]
