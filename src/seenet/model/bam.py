"""How low-level features refine the pyramid's output: boundary attention (Sec. 3.3, Fig. 4c) and the plain skip it is compared with."""

import torch
from torch import Tensor, nn

from seenet.model.seem import ConvUnit


class Classifier(nn.Sequential):
    """3x3 conv unit, then 1x1 with bias to class scores: N x C x h x w -> N x K x h x w (end of Fig. 4c)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(ConvUnit(channels, channels, 3), nn.Conv2d(channels, num_classes, 1))


class BAM(nn.Module):
    """Boundary attention module: P_out refined by what it does not see yet in the low-level features B.

    P: N x c_p x h x w, B: N x c x h x w -> class scores N x K x h x w and the attention A, N x c x h x w in (0, 1).
    P and E are added: Fig. 4c draws a plus.
    """

    def __init__(self, p_channels: int, b_channels: int, num_classes: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(p_channels, b_channels, 1)
        self.fuse = nn.Sequential(ConvUnit(b_channels, p_channels), ConvUnit(p_channels, p_channels, 3))
        self.classifier = Classifier(p_channels, num_classes)

    def forward(self, p: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        attention = 1 - torch.sigmoid(self.project(p))  # Eq. 3
        boundary = attention * b  # Eq. 4
        return self.classifier(p + self.fuse(boundary)), attention


class Skip(nn.Module):
    """Boundary refinement by a plain skip ("BF", Table 1 i): the same as BAM without attention."""

    def __init__(self, p_channels: int, b_channels: int, num_classes: int) -> None:
        super().__init__()
        self.fuse = nn.Sequential(ConvUnit(b_channels, p_channels), ConvUnit(p_channels, p_channels, 3))
        self.classifier = Classifier(p_channels, num_classes)

    def forward(self, p: Tensor, b: Tensor) -> Tensor:
        scores: Tensor = self.classifier(p + self.fuse(b))
        return scores
