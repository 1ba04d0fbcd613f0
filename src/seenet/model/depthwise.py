"""Depthwise convolutions whose gradients can be trusted in bf16 and fp16 on processors."""

import torch
from torch import Tensor, nn

REDUCED = (torch.bfloat16, torch.float16)


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` of a kernel a channel; in float32 while it trains on a processor in bf16 or fp16.

    Some kernels of oneDNN on processors with AVX-512 and bf16 are wrong there, without an error:
    the weight gradient of a dilated convolution in channels-last memory is NaN or points elsewhere
    (cosine 0), and the backward pass of a kernel 19 or more wide over 16 channels never ends
    (docs/precision.md). Float32 is right, and the arithmetic of these convolutions is small.
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
    """Return the 16-bit type that a convolution of x would compute in; None for others."""
    if torch.is_autocast_enabled("cpu") and x.dtype in (torch.float32, *REDUCED):
        dtype = torch.get_autocast_dtype("cpu")
        return dtype if dtype in REDUCED else None
    return x.dtype if x.dtype in REDUCED else None


def use_exact_depthwise(model: nn.Module) -> None:
    """Make every depthwise `nn.Conv2d` of a network a `DepthwiseConv2d`, in place.

    A backbone's are made by its own library.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and 1 < module.groups == module.in_channels:
            module.__class__ = DepthwiseConv2d
