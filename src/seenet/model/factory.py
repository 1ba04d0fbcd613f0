"""A network of the user's own, made by `model.factory: package.module:callable`.

The callable is called with `num_classes=K` and returns a module: normalised images N x 3 x H x W ->
scores N x K x h x w on any grid, or a dict of them with `out` and maybe `aux`, as torchvision's
networks give. A `Backbone` of ours that it keeps under `backbone` is what one is in our networks:
it takes the recipe's weights and its own normalisation, its stages freeze and are recomputed.
Since the callable is code, it comes from the user's settings alone: a model file names it but never
decides that it is run (`files.load_model`).
"""

from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from seenet.core.errors import UsageError
from seenet.core.files import load_callable, own_code
from seenet.model.backbone import Backbone
from seenet.model.depthwise import use_exact_depthwise
from seenet.model.segmenter import Normalization, Segmenter, Window

VARIANT = "factory"
MULTIPLES = (1, 8, 16, 32)
"""What a network's input sides may have to divide by."""


def unknown_parts(factory: object) -> str:
    """Say why nothing is done with the parts of a network that `factory` makes, for an error."""
    name = f"a network of model.factory={str(factory)[:80]}"
    return f"{name}, whose stages and modules are not known; expected a row of Table 1 or a peer"


class FactoryNetwork(Segmenter):
    """The user's network behind the interface of ours; `create_model` builds it.

    Images are normalised with ImageNet's mean and deviation, for a backbone of ours as that says
    (`create_model`). Which multiple the sides must be padded to is found by passes through the
    network itself.

    Raises UsageError: no such callable, one that fails, or a network that gives no scores.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        channels = options["in_channels"]
        mean, std = (
            values if channels == 3 else (sum(values) / 3,) * channels
            for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )
        super().__init__(Normalization(mean, std), options)
        self.network = _make(options["factory"], self.num_classes)
        use_exact_depthwise(self.network)
        self.backbone = FactoryBackbone(self.network)
        self.auxiliary = None
        self.pad_multiple = self._needed_multiple(channels)

    def _features(self, images: Tensor, window: Window | None = None) -> dict[str, Tensor]:
        try:
            found = self.network(self._padded(images))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UsageError(
                f"{self._name}: training gives batch norm one point ({error}); use a batch of at least 2 images"
            ) from None
        named = found if isinstance(found, dict) else {"out": found}
        scores = named.get("out")
        if (
            not isinstance(scores, Tensor)
            or scores.dim() != 4
            or scores.shape[:2] != (images.shape[0], self.num_classes)
        ):
            what = (
                f"a tensor {'x'.join(map(str, scores.shape))}"
                if isinstance(scores, Tensor)
                else f"a {type(found).__name__}"
            )
            raise UsageError(
                f"{self._name}: the network gives {what} for {len(images)} image(s), expected scores "
                f"{len(images)} x {self.num_classes} x h x w, or a dict with them under `out`"
            )
        if not self.options["auxiliary"]:
            return {"scores": scores}
        if "aux" not in named and self.training:
            raise UsageError(
                f"{self._name}: loss.auxiliary wants scores under `aux` in the network's dict; add them, or set loss.auxiliary=0"
            )
        return {"scores": scores, **({"auxiliary": named["aux"]} if "aux" in named else {})}

    @property
    def trunk(self) -> Backbone | None:
        """Return the backbone of ours that the network stands on, if it does."""
        found = getattr(self.network, "backbone", None)
        return found if isinstance(found, Backbone) else None

    @property
    def _name(self) -> str:
        return f"model.factory={self.options['factory']}"

    def _needed_multiple(self, channels: int) -> int:
        """Find the least multiple that the sides of a picture must divide by to pass."""
        was_training = self.training
        self.eval()
        reason = ""
        # A backbone of ours would pad by itself, and its grid would be that of the padded picture.
        least = self.trunk.pad_multiple if self.trunk else 1
        for multiple in (one for one in MULTIPLES if one >= least):
            self.pad_multiple = multiple
            height, width = (5 * multiple, 3 * multiple) if multiple > 1 else (37, 35)
            try:
                with torch.no_grad():
                    self._features(torch.zeros(1, channels, height, width))
            except UsageError:
                raise
            except (
                Exception
            ) as error:  # whatever the user's network raises at a size it cannot take
                reason = " ".join(f"{height}x{width}: {type(error).__name__}: {error}".split())[
                    :160
                ]
                continue
            self.train(was_training)
            return multiple
        raise UsageError(
            f"{self._name}: the network takes no size that was tried ({reason}); it must take any multiple of {MULTIPLES[-1]}"
        )


class FactoryBackbone:
    """Parameters and batch norms of the backbone in a network that nobody here knows.

    It is what the network keeps under `backbone` or `encoder`; a network with neither is backbone
    throughout, and has one learning rate. Its stages are not known, but for a `Backbone` of ours.
    """

    strides: tuple[int, ...] = ()

    def __init__(self, network: nn.Module) -> None:
        found = getattr(network, "backbone", None) or getattr(network, "encoder", None)
        self._module = found if isinstance(found, nn.Module) else network

    def parameters(self) -> list[nn.Parameter]:
        return list(self._module.parameters())

    def norms(self) -> list[nn.Module]:
        if isinstance(self._module, Backbone):
            return self._module.norms()
        return [module for module in self._module.modules() if isinstance(module, nn.BatchNorm2d)]

    def stage_modules(self) -> list[list[nn.Module]]:
        if isinstance(self._module, Backbone):
            return self._module.stage_modules()
        raise UsageError(
            "training.freeze_stages: the stages of a network of model.factory are not known; freeze them in your callable"
        )

    @property
    def recompute(self) -> bool:
        return isinstance(self._module, Backbone) and self._module.recompute

    @recompute.setter
    def recompute(self, value: bool) -> None:
        if isinstance(self._module, Backbone):
            self._module.recompute = value
        elif value:
            raise UsageError(
                "training.activation_checkpointing: not known how in a network of model.factory; do it in your module"
            )


def _make(name: str, num_classes: int) -> nn.Module:
    factory = load_callable(name, "model.factory", "(num_classes=)")
    with own_code(f"model.factory={name}"):
        network = factory(num_classes=num_classes)
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"model.factory={name}: gave a {type(network).__name__}, expected a torch.nn.Module"
        )
    return network
