"""Depthwise convolutions with reliable gradients in bf16 and fp16 on CPUs."""

import torch
from torch import Tensor, nn

REDUCED = (torch.bfloat16, torch.float16)


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise `nn.Conv2d`; on the CPU it trains in float32 even where bf16 or fp16 is asked for.

    On CPUs with AVX-512 and bf16 some kernels of oneDNN fail without an error: the weight gradient
    of a dilated convolution in channels-last memory is NaN or wrong (cosine 0), and the backward
    pass of a kernel 19 or more wide over 16 channels never ends (docs/precision.md). Float32 is
    right, and these convolutions are a small part of the arithmetic.
    """

    def forward(self, x: Tensor) -> Tensor:
        reduced = _reduced(x) if x.device.type == "cpu" and torch.is_grad_enabled() else None
        if reduced is None:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            bias = None if self.bias is None else self.bias.float()
            out: Tensor = self._conv_forward(x.float(), self.weight.float(), bias).to(reduced)
            return out


def _reduced(x: Tensor) -> torch.dtype | None:
    """Return the 16-bit type in which a convolution of x would be computed; None for others."""
    if torch.is_autocast_enabled("cpu") and x.dtype in (torch.float32, *REDUCED):
        dtype = torch.get_autocast_dtype("cpu")
        return dtype if dtype in REDUCED else None
    return x.dtype if x.dtype in REDUCED else None


def use_exact_depthwise(model: nn.Module) -> None:
    """Turn every depthwise `nn.Conv2d` of a network, its backbone's too, into `DepthwiseConv2d`."""
    for module in model.modules():
        if type(module) is nn.Conv2d and 1 < module.groups == module.in_channels:
            module.__class__ = DepthwiseConv2d
