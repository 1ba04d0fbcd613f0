"""Boundary attention by value (Eq. 3 and 4), and that P and E are added."""

import torch
from torch import nn

from seenet.model.bam import BAM, Skip


def identity(conv: nn.Conv2d) -> None:
    with torch.no_grad():
        conv.weight.zero_()
        for channel in range(conv.out_channels):
            conv.weight[channel, channel, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1


def transparent(module: nn.Module) -> None:
    """Make conv units pass positive features through unchanged."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            identity(part)
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 0.0
    module.eval()


def test_attention_by_value() -> None:
    bam = BAM(3, 2, num_classes=4).eval()
    p, b = torch.randn(2, 3, 5, 6), torch.randn(2, 2, 5, 6)
    _, attention = bam(p, b)
    weight, bias = bam.project.weight[:, :, 0, 0], bam.project.bias
    assert bias is not None
    for n, y, x in ((0, 0, 0), (1, 4, 5), (0, 2, 3)):
        projected = weight @ p[n, :, y, x] + bias
        torch.testing.assert_close(attention[n, :, y, x], 1 - 1 / (1 + torch.exp(-projected)))


def test_attention_times_b_is_added_to_p() -> None:
    bam = BAM(3, 3, num_classes=3)
    transparent(bam.fuse)
    transparent(bam.classifier[0])
    p, b = torch.rand(1, 3, 5, 5), torch.rand(1, 3, 5, 5)
    scores, attention = bam(p, b)
    head = bam.classifier[1]
    torch.testing.assert_close(scores, head(p + attention * b))
    assert not torch.allclose(scores, head(p + b))


def test_skip_adds_b_without_attention() -> None:
    skip = Skip(3, 3, num_classes=3)
    transparent(skip.fuse)
    transparent(skip.classifier[0])
    p, b = torch.rand(1, 3, 5, 5), torch.rand(1, 3, 5, 5)
    torch.testing.assert_close(skip(p, b), skip.classifier[1](p + b))


def test_layers_as_in_fig_4c() -> None:
    bam = BAM(8, 5, num_classes=4)
    convs = [module for module in bam.modules() if isinstance(module, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.bias is not None) for c in convs] == [
        (8, 5, 1, True), (5, 8, 1, False), (8, 8, 3, False), (8, 8, 3, False), (8, 4, 1, True),
    ]  # fmt: skip
