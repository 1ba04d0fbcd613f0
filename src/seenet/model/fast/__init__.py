"""Faster forms of the network on CPUs: the same parameters and mathematics, other arithmetic.

The modules of `seenet.model` stay as the paper states them; after `use_fast` the forms in this
package compute them, in training too. Each is tested equal to the plain one, with its gradients
(float32, 1e-5 relative). `prediction` has the form for prediction.
"""

from typing import Any

from torch import nn

from seenet.model.fast.concat_free import ConcatFreeSeENet
from seenet.model.fast.depthwise import ShiftedDepthwiseConv2d
from seenet.model.fast.fft_conv import FFTConv2d
from seenet.model.fast.winograd import WinogradConv2d

FORMS: tuple[Any, ...] = (
    ShiftedDepthwiseConv2d,
    WinogradConv2d,
    FFTConv2d,
    ConcatFreeSeENet,
)
"""The faster forms; each is a subclass of the plain form that it stands for."""


def use_fast(model: nn.Module) -> None:
    """Switch a network and its convolutions to their faster forms, in place.

    Parameters and names stay. It is worth it on the CPU, in channels-last memory. Do not trace
    (export, compile) the network afterwards: some forms depend on the size of the image.
    """
    module: Any
    for module in model.modules():
        for form in FORMS:
            # A form has the attributes of the plain module, so only the class changes.
            if type(module) is form.__base__ and form.fits(module):
                module.__class__ = form


def use_plain(model: nn.Module) -> None:
    """Undo `use_fast`, in place."""
    module: Any
    for module in model.modules():
        if type(module) in FORMS:
            module.__class__ = type(module).__base__
