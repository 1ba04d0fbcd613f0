"""Peers to compare with: heads of torchvision and segmentation-models-pytorch on our backbones.

The heads are those libraries' own, with their defaults and their initialisation. What is ours is
what surrounds every row alike: the backbone and its weights, padding, one bilinear resize of the
scores from the head's own grid, the auxiliary head on B3. The `baseline` of Table 1 is not here: it
is the paper's (`seenet.ASPP`).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from math import ceil
from typing import Any

from torch import Tensor, nn

from seenet.core.errors import UsageError
from seenet.model.backbone import Backbone
from seenet.model.seenet import auxiliary_head, scaled_rates
from seenet.model.segmenter import Normalization, Segmenter, Window

log = logging.getLogger("seenet")

RATES = (12, 24, 36)
"""Of the ASPP of DeepLabv3 and DeepLabv3+ at output stride 8 (Chen et al. 2017, 2018)."""

Parts = tuple[nn.Module | None, nn.Module]
"""A decoder of all stages or none, and the head on its output or on B4."""


@dataclass(frozen=True)
class Peer:
    """Describe how a peer is built.

    Attributes:
        parts: Called with the channels of B1 to B4, classes, output stride, rates.
        output_strides: Those it is made for: one where its pyramid needs an undilated backbone.
        divides: Whether sides must divide by the output stride.
        pools: Whether it has batch norm on one point an image, and so cannot train on one image.
    """

    parts: Callable[[Sequence[int], int, int, Sequence[int]], Parts]
    output_strides: tuple[int, ...] = (8, 16, 32)
    divides: bool = False
    pools: bool = False


class PeerNetwork(Segmenter):
    """A peer's head on a backbone; `create_model` builds it and describes the options.

    Raises UsageError for an output stride it cannot take.
    """

    def __init__(self, backbone: Backbone, normalization: Normalization, options: dict[str, Any]) -> None:
        super().__init__(normalization, options)
        self.peer = PEERS[options["variant"]]
        stride = backbone.strides[3]
        self.pad_multiple = max(backbone.pad_multiple, stride if self.peer.divides else 1)
        self.backbone = backbone
        rates = scaled_rates(RATES, stride, options)
        self.decoder, self.head = self.peer.parts(backbone.channels, self.num_classes, stride, rates)
        self.auxiliary = auxiliary_head(backbone.channels[2], self.num_classes) if options["auxiliary"] else None

    def _features(self, images: Tensor, window: Window | None = None) -> dict[str, Tensor]:
        images = self._padded(images)
        self._check_batch_norm(images)
        stages = self.backbone(images)
        # segmentation-models-pytorch counts from stride 1; none of these decoders looks at the first two.
        top = stages[3] if self.decoder is None else self.decoder([stages[0], stages[0], *stages])
        return {**dict(zip(("B1", "B2", "B3", "B4"), stages, strict=True)), "scores": self.head(top)}

    def _check_batch_norm(self, images: Tensor) -> None:
        count, _, height, width = images.shape
        stride = self.backbone.strides[3]
        points = count if self.peer.pools else count * ceil(height / stride) * ceil(width / stride)
        if self.training and points == 1:
            raise UsageError(
                f"training {self.options['variant']} on one image of {height}x{width} pixels gives batch norm one point; "
                "use a batch of at least 2 images a process and micro-batch"
            )


def peer_output_stride(variant: str, asked: int) -> int:
    """Return the output stride that a peer is built with: of FPN and UPerNet their own, logged.

    Raises UsageError where it cannot be the one asked for.
    """
    strides = PEERS[variant].output_strides
    if asked in strides:
        return asked
    if len(strides) > 1:
        raise UsageError(f"output_stride={asked}: {variant} takes {' or '.join(map(str, strides))}; set model.output_stride={strides[0]}")
    log.info("%s: output stride %d, since its pyramid goes over a backbone that is not dilated (not %d)", variant, strides[0], asked)
    return strides[0]


def check_installed(variant: str) -> None:
    """Raise UsageError where a peer's library is not there."""
    if variant.startswith("smp-") and find_spec("segmentation_models_pytorch") is None:
        raise UsageError(
            f"variant {variant}: needs segmentation-models-pytorch, found none; install it with: pip install 'seenet[baselines]'"
        )


def _fcn(channels: Sequence[int], classes: int, stride: int, rates: Sequence[int]) -> Parts:
    from torchvision.models.segmentation.fcn import FCNHead

    return None, FCNHead(channels[3], classes)


def _deeplabv3(channels: Sequence[int], classes: int, stride: int, rates: Sequence[int]) -> Parts:
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    return None, DeepLabHead(channels[3], classes, rates)


def _pspnet(channels: Sequence[int], classes: int, stride: int, rates: Sequence[int]) -> Parts:
    decoder = _smp("decoders.pspnet.decoder").PSPDecoder(_smp_channels(channels))
    return _initialized(decoder, 512, classes, kernel=3)


def _deeplabv3plus(channels: Sequence[int], classes: int, stride: int, rates: Sequence[int]) -> Parts:
    decoder = _smp("decoders.deeplabv3.decoder").DeepLabV3PlusDecoder(
        _smp_channels(channels), 5, 256, rates, stride, aspp_separable=True, aspp_dropout=0.5
    )
    return _initialized(decoder, 256, classes)


def _upernet(channels: Sequence[int], classes: int, stride: int, rates: Sequence[int]) -> Parts:
    return _initialized(_smp("decoders.upernet.decoder").UPerNetDecoder(_smp_channels(channels)), 256, classes)


def _fpn(channels: Sequence[int], classes: int, stride: int, rates: Sequence[int]) -> Parts:
    decoder = _smp("decoders.fpn.decoder").FPNDecoder(_smp_channels(channels))
    return _initialized(decoder, decoder.out_channels, classes)


def _smp(module: str) -> Any:
    return import_module(f"segmentation_models_pytorch.{module}")


def _smp_channels(channels: Sequence[int]) -> list[int]:
    """Prepend strides 1 and 2, whose widths are not looked at."""
    return [0, 0, *channels]


def _initialized(decoder: nn.Module, width: int, classes: int, *, kernel: int = 1) -> Parts:
    """Initialise decoder and head as that library does, without its upsampling (align_corners)."""
    head = _smp("base").SegmentationHead(width, classes, kernel_size=kernel)
    initialization = _smp("base.initialization")
    initialization.initialize_decoder(decoder)
    initialization.initialize_head(head)
    return decoder, head


PEERS = {
    "torchvision-fcn": Peer(_fcn),
    "torchvision-deeplabv3": Peer(_deeplabv3, pools=True),
    "smp-pspnet": Peer(_pspnet),
    "smp-deeplabv3plus": Peer(_deeplabv3plus, (8, 16), divides=True, pools=True),
    "smp-upernet": Peer(_upernet, (32,), pools=True),
    "smp-fpn": Peer(_fpn, (32,), divides=True),
}
"""Peers by variant name; those of segmentation-models-pytorch need the extra `baselines`."""
