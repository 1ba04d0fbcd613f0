"""SeENet without its concatenations: a 1x1 convolution of a concatenation is a sum of convolutions.

An enhanced level is its input with four branches behind it, and the next level concatenates a stage
of the backbone behind that: up to 5,120 channels, which only 1x1 convolutions read. Here a level is
the list of its tensors, and none is copied. The 1x1 of the attention comes before the upsampling,
on a quarter of the points or less: both are linear, and bilinear weights sum to 1, so that its bias
stays.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seenet.model.seenet import BAM, ConvUnit, SeEM, SeENet, pool_to
from seenet.model.segmenter import Window


def project(unit: Any, parts: list[Tensor]) -> Tensor:
    """Apply a 1x1 conv unit to the concatenation of N x C_i x h x w: N x C' x h x w.

    A folded unit takes the parts itself.
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
    """Apply SeEM or SeEM-FS (Fig. 4) to a concatenation: return its parts and the branches."""
    branches: Any = module.branches
    outputs = []
    for branch in branches:
        first, *rest = branch
        x = project(first, parts)
        for layer in rest:
            x = layer(x)
        outputs.append(x)
    return [*parts, torch.cat(outputs, dim=1)]


class ConcatFreeSeENet(SeENet):
    """A row of Table 1 that enhances all three levels (f to j).

    It does not call hooks on the 1x1 units that read a concatenation.
    """

    @staticmethod
    def fits(model: SeENet) -> bool:
        """Tell whether this form can stand for `model`."""
        return model.pyramid is not None and all(
            isinstance(level, SeEM) for level in model.pyramid.children()
        )

    def _scores(self, images: Tensor, window: Window | None = None) -> Tensor:
        self._check_batch_norm(images, self.backbone.strides[3])
        b1, b2, b3, b4 = self.backbone(images)
        low = b1 if self.options["refine_stride"] == 4 else pool_to(b1, b2)
        pyramid, refine = self.pyramid, self.refine
        parts = enhance(pyramid.P2, [b2])
        parts = enhance(pyramid.P3, [*(pool_to(part, b3) for part in parts), b3])
        parts = enhance(pyramid.P4, [*(pool_to(part, b4) for part in parts), b4])
        p_out = project(self.reduce, parts)
        # Free what is no longer needed before the refinement, which has the largest grid.
        del parts, b1, b2, b3, b4
        if self.head is not None:
            return self.head(p_out)  # type: ignore[no-any-return]
        if not isinstance(refine, BAM):
            fused = refine.fuse(low)
        elif self.training and window is None:
            # The input of the first convolution, on the largest grid of all, is computed again in
            # the backward pass.
            convolution, norm, activation = refine.fuse[0].children()
            x = checkpoint(
                lambda z, b: convolution(self._boundary(z, b)),
                refine.project(p_out),
                low,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            fused = refine.fuse[1](activation(norm(x)))
        else:
            fused = refine.fuse(self._boundary(refine.project(p_out), low, window))
        # Upsample last: the largest tensor then lives shortest in both passes.
        scores: Tensor = refine.classifier(fused + self.upsampled(p_out, low, window))
        return scores

    def _boundary(self, z: Tensor, b: Tensor, window: Window | None = None) -> Tensor:
        """Compute Eq. 3 and Eq. 4; 1 - sigmoid(z) = sigmoid(-z) is one tensor less to keep."""
        return torch.sigmoid(-self.upsampled(z, b, window)) * b
