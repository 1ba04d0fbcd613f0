"""Peers to compare with: heads of torchvision and segmentation-models-pytorch on our backbones.

The heads are the libraries' own, with their defaults and their initialisation. The rest is the same
for every network: the backbone and its weights, padding, one bilinear resize of the scores from the
head's own grid, the auxiliary head on B3. The `baseline` of Table 1 is in `seenet.py`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from seenet.core.errors import UsageError
from seenet.model.backbone import Backbone
from seenet.model.seenet import auxiliary_head, scaled_rates
from seenet.model.segmenter import Normalization, Segmenter

log = logging.getLogger("seenet")

RATES = (12, 24, 36)
"""Of the ASPP of DeepLabv3 and DeepLabv3+ at output stride 8 (Chen et al. 2017, 2018)."""

DecoderAndHead = tuple[nn.Module | None, nn.Module]
"""A decoder of all stages, or None for a head on B4; the head."""


@dataclass(frozen=True)
class Peer:
    """Construction of a peer.

    Attributes:
        build: Called with the channels of B1 to B4, classes, output stride and rates.
        output_strides: Those it is made for; only 32 where its pyramid needs an undilated backbone.
        divides: The input's sides must divide by the output stride.
        pools: It has batch norm on one point per image, so it cannot train on one image.
    """

    build: Callable[[Sequence[int], int, int, Sequence[int]], DecoderAndHead]
    output_strides: tuple[int, ...] = (8, 16, 32)
    divides: bool = False
    pools: bool = False


class PeerNetwork(Segmenter):
    """A peer's head on a backbone; `create_model` describes the options."""

    def __init__(
        self, backbone: Backbone, normalization: Normalization, options: dict[str, Any]
    ) -> None:
        super().__init__(normalization, options)
        self.peer = PEERS[options["variant"]]
        channels, stride = backbone.channels, backbone.strides[3]
        self.pad_multiple = max(backbone.pad_multiple, stride if self.peer.divides else 1)
        self.backbone = backbone
        rates = scaled_rates(RATES, stride, options)
        self.decoder, self.head = self.peer.build(channels, self.num_classes, stride, rates)
        self.auxiliary = (
            auxiliary_head(channels[2], self.num_classes) if options["auxiliary"] else None
        )

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        images = self._padded(images)
        self._check_batch_norm(images, None if self.peer.pools else self.backbone.strides[3])
        b1, b2, b3, b4 = self.backbone(images)
        # segmentation-models-pytorch counts from stride 1; no decoder here reads the first two.
        top = b4 if self.decoder is None else self.decoder([b1, b1, b1, b2, b3, b4])
        return {"B1": b1, "B2": b2, "B3": b3, "B4": b4, "scores": self.head(top)}


def peer_output_stride(variant: str, output_stride: int) -> int:
    """Return the output stride to build a peer with: FPN and UPerNet have one, which is logged.

    Raises UsageError where a peer with a choice cannot take `output_stride`.
    """
    strides = PEERS[variant].output_strides
    if output_stride in strides:
        return output_stride
    if len(strides) > 1:
        raise UsageError(
            f"output_stride={output_stride}: {variant} takes {' or '.join(map(str, strides))}; "
            f"set model.output_stride={strides[0]}"
        )
    log.info(
        "%s: output stride %d instead of %d, because its pyramid needs an undilated backbone",
        variant,
        strides[0],
        output_stride,
    )
    return strides[0]


def check_installed(variant: str) -> None:
    """Raise UsageError where a peer's library is not installed."""
    if variant.startswith("smp-") and find_spec("segmentation_models_pytorch") is None:
        raise UsageError(
            f"variant {variant}: needs segmentation-models-pytorch, which is not installed; "
            "install it with: pip install 'seenet[baselines]'"
        )


def _fcn(channels: Sequence[int], classes: int, *_: object) -> DecoderAndHead:
    from torchvision.models.segmentation.fcn import FCNHead

    return None, FCNHead(channels[3], classes)


def _deeplabv3(
    channels: Sequence[int], classes: int, stride: int, rates: Sequence[int]
) -> DecoderAndHead:
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    return None, DeepLabHead(channels[3], classes, rates)


def _pspnet(channels: Sequence[int], classes: int, *_: object) -> DecoderAndHead:
    decoder = _smp("decoders.pspnet.decoder").PSPDecoder([0, 0, *channels])
    return _initialized(decoder, 512, classes, kernel=3)


def _deeplabv3plus(
    channels: Sequence[int], classes: int, stride: int, rates: Sequence[int]
) -> DecoderAndHead:
    decoder = _smp("decoders.deeplabv3.decoder").DeepLabV3PlusDecoder(
        [0, 0, *channels], 5, 256, rates, stride, aspp_separable=True, aspp_dropout=0.5
    )
    return _initialized(decoder, 256, classes)


def _upernet(channels: Sequence[int], classes: int, *_: object) -> DecoderAndHead:
    decoder = _smp("decoders.upernet.decoder").UPerNetDecoder([0, 0, *channels])
    return _initialized(decoder, 256, classes)


def _fpn(channels: Sequence[int], classes: int, *_: object) -> DecoderAndHead:
    decoder = _smp("decoders.fpn.decoder").FPNDecoder([0, 0, *channels])
    return _initialized(decoder, decoder.out_channels, classes)


def _smp(module: str) -> Any:
    """Import a module of the library. Its decoders take channels from stride 1 on, here 0, 0."""
    return import_module(f"segmentation_models_pytorch.{module}")


def _initialized(
    decoder: nn.Module, width: int, classes: int, *, kernel: int = 1
) -> DecoderAndHead:
    """Initialise decoder and head as the library does; leave out its upsampling (align_corners)."""
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
