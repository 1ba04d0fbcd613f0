"""Wide 3x3 convolutions, dilated or not, by Winograd's tiles: forward pass and both gradients."""

from typing import Any

import torch
from torch import Tensor, nn

from seenet.model.fast.winograd import convolve, transform_kernels, waste, weight_gradient

LEAST_CHANNELS = 256 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 128
"""Below, moving the tiles costs more than the products saved; wider vector units leave less to save (benchmarks/NOTES.md)."""
MOST_WASTE = 1.5
"""Where tiles reach further beyond the picture, the plain form is as fast."""


class _Wide(torch.autograd.Function):
    """N x h x w x C, C' x C x 3 x 3 -> N x h x w x C'."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return convolve(x, transform_kernels(weight), dilation)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        needs_x, needs_weight, _ = ctx.needs_input_grad
        turned = weight.flip(2, 3).transpose(0, 1)
        return (
            convolve(grad, transform_kernels(turned), ctx.dilation) if needs_x else None,
            weight_gradient(x, grad, ctx.dilation) if needs_weight else None,
            None,
        )


class WideConv2d(nn.Conv2d):
    """`nn.Conv2d` 3x3 of many channels, "same" padding; float32, channels-last memory in and out. Under autocast it is the plain form."""

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether this form can stand for `conv`."""
        return (
            conv.kernel_size == (3, 3)
            and conv.groups == 1
            and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS
            and conv.stride == (1, 1)
            and conv.dilation[0] == conv.dilation[1]
            and conv.padding == conv.dilation
            and conv.padding_mode == "zeros"
        )

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type) or waste(x.shape[2], x.shape[3], self.dilation[0]) > MOST_WASTE:
            return super().forward(x)
        out: Tensor = _Wide.apply(x.permute(0, 2, 3, 1).contiguous(), self.weight, self.dilation[0])
        if self.bias is not None:
            out = out + self.bias
        return out.permute(0, 3, 1, 2)
