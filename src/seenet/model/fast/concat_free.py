"""SeENet without its concatenations: a 1x1 convolution of a concatenation is a sum of one for each.

An enhanced level ends as its input with four branches behind it, and the next concatenates a stage
of the backbone behind that: up to 5,120 channels, which nothing but 1x1 convolutions reads. Here a
level is the list of its tensors, and none is copied. The attention's 1x1 stands before the
upsampling, on a quarter of the points or less: both are linear, and bilinear weights sum to 1, so
its bias passes.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seenet.model.seenet import BAM, ConvUnit, SeEM, SeENet, check_batch_norm, pool_to
from seenet.model.segmenter import Window


def project(unit: Any, parts: list[Tensor]) -> Tensor:
    """Apply a 1x1 conv unit to the concatenation of N x C_i x h x w: N x C' x h x w.

    One that is folded adds its parts up itself.
    """
    if not isinstance(unit, ConvUnit):
        return unit(parts)  # type: ignore[no-any-return]
    conv: Any
    conv, norm, activation = unit
    weights = conv.weight.split([part.shape[1] for part in parts], dim=1)
    total = F.conv2d(parts[0], weights[0])
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total += F.conv2d(part, weight)
    out: Tensor = activation(norm(total))
    return out


def enhance(module: SeEM, parts: list[Tensor]) -> list[Tensor]:
    """Apply SeEM or SeEM-FS (Fig. 4) to a concatenation: its parts, the four branches as one more."""
    branches: Any = module.branches
    outputs = []
    for branch in branches:
        first, *rest = branch
        x = project(first, parts)
        for step in rest:
            x = step(x)
        outputs.append(x)
    return [*parts, torch.cat(outputs, dim=1)]


class ConcatFreeSeENet(SeENet):
    """A row of Table 1 that enhances all three levels (f to j).

    Hooks on the 1x1 units that read a concatenation are not called.
    """

    @staticmethod
    def fits(model: SeENet) -> bool:
        """Tell whether this form can stand for `model`."""
        pyramid = model.pyramid
        return pyramid is not None and all(isinstance(level, SeEM) for level in (pyramid.P2, pyramid.P3, pyramid.P4))

    def _scores(self, images: Tensor, window: Window | None = None) -> Tensor:
        check_batch_norm(self, images, self.backbone.strides[3])
        b1, b2, b3, b4 = self.backbone(images)
        low = b1 if self.options["refine_stride"] == 4 else pool_to(b1, b2)
        pyramid: Any = self.pyramid
        parts = enhance(pyramid.P2, [b2])
        parts = enhance(pyramid.P3, [*(pool_to(part, b3) for part in parts), b3])
        parts = enhance(pyramid.P4, [*(pool_to(part, b4) for part in parts), b4])
        p_out = project(self.reduce, parts)
        # Nothing reads them any more; the refinement has the largest grid.
        del parts, b1, b2, b3, b4
        refine: Any = self.refine
        head: Any = self.head
        if refine is None:
            return head(p_out)  # type: ignore[no-any-return]
        if not isinstance(refine, BAM):
            fused = refine.fuse(low)
        elif self.training and window is None:
            # What the first convolution reads is computed again in the backward pass: this is the largest grid of all.
            unit: Any = refine.fuse[0]
            convolution, norm, activation = unit
            z = refine.project(p_out)
            x = checkpoint(lambda z, b: convolution(self._boundary(z, b)), z, low, use_reentrant=False, preserve_rng_state=False)
            fused = refine.fuse[1](activation(norm(x)))
        else:
            fused = refine.fuse(self._boundary(refine.project(p_out), low, window))
        # Last, so that the upsampled tensor lives shortest in both passes.
        return refine.classifier(fused + self.upsampled(p_out, low, window))  # type: ignore[no-any-return]

    def _boundary(self, z: Tensor, b: Tensor, window: Window | None = None) -> Tensor:
        """Compute Eq. 3 and 4; 1 - sigmoid(z) = sigmoid(-z) is one tensor less to keep."""
        return torch.sigmoid(-self.upsampled(z, b, window)) * b
