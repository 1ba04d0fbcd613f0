"""Faster forms of the network on processors: same parameters and mathematics, other arithmetic.

The modules of `seenet.model` stay as the paper states them; `use_fast` lets the forms in this
package compute them. Each is tested equal to the plain one, gradients included (float32, 1e-5
relative). `prediction` has the form for prediction alone.
"""

from typing import Any

from torch import nn

from seenet.model.depthwise import DepthwiseConv2d
from seenet.model.fast.concat_free import ConcatFreeSeENet
from seenet.model.fast.depthwise import ShiftedDepthwiseConv2d
from seenet.model.fast.fft_conv import FFTConv2d
from seenet.model.fast.winograd import WinogradConv2d
from seenet.model.seenet import SeENet

FORMS: dict[type[ShiftedDepthwiseConv2d | WinogradConv2d | FFTConv2d], type[nn.Conv2d]] = {
    ShiftedDepthwiseConv2d: DepthwiseConv2d,
    WinogradConv2d: nn.Conv2d,
    FFTConv2d: nn.Conv2d,
}
"""Each form of a convolution, and the plain one that it stands for."""


def use_fast(model: nn.Module) -> None:
    """Compute `model` and its convolutions by their faster forms from now on, in place.

    Parameters and names stay. Worth it on the CPU, in channels-last memory. A network to be traced
    (exported, compiled) keeps the plain form: the faster ones decide by the size of the picture.
    """
    module: Any
    for module in model.modules():
        # A form adds a way to compute and nothing to store, so the module need not be made anew.
        if type(module) in (nn.Conv2d, DepthwiseConv2d):
            form = next((form for form in FORMS if form.fits(module)), None)
            if form is not None:
                module.__class__ = form
        elif type(module) is SeENet and ConcatFreeSeENet.fits(module):
            module.__class__ = ConcatFreeSeENet


def use_plain(model: nn.Module) -> None:
    """Undo `use_fast`, in place."""
    module: Any
    for module in model.modules():
        if type(module) in FORMS:
            module.__class__ = FORMS[type(module)]
        elif type(module) is ConcatFreeSeENet:
            module.__class__ = SeENet  # type: ignore[assignment]
