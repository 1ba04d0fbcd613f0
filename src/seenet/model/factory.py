"""A network of the user's own, made by `model.factory: package.module:callable`.

The callable is called with `num_classes=K` and returns a module: normalised images N x 3 x H x W ->
scores N x K x h x w on any grid, or a dict with them under `out` and optionally `aux`, as
torchvision's networks return. A `Backbone` that it keeps under `backbone` behaves as in our own
networks: it takes the recipe's weights and their normalisation, and its stages can be frozen and
recomputed. The callable is code, so only the user's settings may name it: a model file records the
name but never decides to run it (`files.load_model`).
"""

from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from seenet.core.errors import UsageError
from seenet.core.files import load_callable, own_code
from seenet.model.backbone import BATCH_NORMS, Backbone
from seenet.model.depthwise import use_exact_depthwise
from seenet.model.segmenter import Normalization, Segmenter

VARIANT = "factory"
MULTIPLES = (1, 8, 16, 32)
"""The multiples of the input's sides that are tried."""


def unknown_parts(factory: object) -> str:
    """Return the error text for commands that need the stages or modules of a known network."""
    name = f"a network of model.factory={str(factory)[:80]}"
    return f"{name}, whose stages and modules are not known; expected a row of Table 1 or a peer"


class FactoryNetwork(Segmenter):
    """The user's network behind the interface of `Segmenter`; `create_model` builds it.

    Images are normalised with ImageNet's mean and standard deviation, or as its `Backbone` needs
    (`create_model`). `pad_multiple` is found by passes through the network.

    Raises UsageError where the callable is missing or fails, or the network returns no scores.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        channels = options["in_channels"]
        mean, std = (
            values if channels == 3 else (sum(values) / 3,) * channels
            for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )
        super().__init__(Normalization(mean, std), options)
        self._name = f"model.factory={options['factory']}"
        factory = load_callable(options["factory"], "model.factory", "(num_classes=)")
        with own_code(self._name):
            self.network = factory(num_classes=self.num_classes)
        if not isinstance(self.network, nn.Module):
            raise UsageError(
                f"{self._name}: returned a {type(self.network).__name__}, "
                "expected a torch.nn.Module"
            )
        use_exact_depthwise(self.network)
        self.auxiliary = None
        self._find_pad_multiple(channels)

    @property
    def backbone(self) -> Any:
        """Return the `Backbone` under the network's attribute `backbone`, or what stands for it."""
        found = getattr(self.network, "backbone", None)
        if isinstance(found, Backbone):
            return found
        part = found or getattr(self.network, "encoder", None)
        return UnknownBackbone(part if isinstance(part, nn.Module) else self.network)

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        try:
            output = self.network(self._padded(images))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UsageError(
                f"{self._name}: training gives batch norm one point ({error}); "
                "use a batch of at least 2 images"
            ) from None
        tensors = output if isinstance(output, dict) else {"out": output}
        scores = tensors.get("out")
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else ()
        # Not `len(images)`, which would be a constant in a traced network.
        if len(shape) != 4 or shape[:2] != (images.shape[0], self.num_classes):
            returned = f"shape {'x'.join(map(str, shape))}" if shape else type(output).__name__
            raise UsageError(
                f"{self._name}: the network returned {returned} for {len(images)} image(s), "
                f"expected scores {len(images)} x {self.num_classes} x h x w, "
                "or a dict with them under `out`"
            )
        features = {"scores": tensors["out"]}
        if self.options["auxiliary"] and "aux" in tensors:
            features["auxiliary"] = tensors["aux"]
        elif self.options["auxiliary"] and self.training:
            raise UsageError(
                f"{self._name}: loss.auxiliary needs scores under `aux` in the network's dict; "
                "add them, or set loss.auxiliary=0"
            )
        return features

    def _find_pad_multiple(self, channels: int) -> None:
        """Set `pad_multiple` to the first of `MULTIPLES` with which a pass succeeds."""
        self.eval()
        reason = ""
        # A `Backbone` would pad by itself, and its grid would be that of the padded image.
        for multiple in (one for one in MULTIPLES if one >= self.backbone.pad_multiple):
            self.pad_multiple = multiple
            height, width = (5 * multiple, 3 * multiple) if multiple > 1 else (37, 35)
            try:
                with torch.no_grad():
                    self._features(torch.zeros(1, channels, height, width))
            except UsageError:
                raise
            except Exception as error:  # the user's network may raise anything
                reason = f"{height}x{width}: {type(error).__name__}: {error}"
            else:
                self.train()
                return
        raise UsageError(
            f"{self._name}: the network takes no size that was tried "
            f"({' '.join(reason.split())[:160]}); it must take any multiple of {MULTIPLES[-1]}"
        )


class UnknownBackbone:
    """Parameters and batch norms of a user's own backbone, for their own settings.

    It is the network's attribute `backbone` or `encoder`; without them, the whole network, which
    then has one learning rate. Its stages are not known.
    """

    strides: tuple[int, ...] = ()
    pad_multiple = 1

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def parameters(self) -> list[nn.Parameter]:
        return list(self._module.parameters())

    def norms(self) -> list[nn.Module]:
        return [module for module in self._module.modules() if isinstance(module, BATCH_NORMS)]

    def stage_modules(self) -> list[list[nn.Module]]:
        raise UsageError(
            "training.freeze_stages: the stages of a network of model.factory are not known; "
            "freeze them in your callable"
        )

    @property
    def recompute(self) -> bool:
        return False

    @recompute.setter
    def recompute(self, value: bool) -> None:
        if value:
            raise UsageError(
                "training.activation_checkpointing: not available for a network of model.factory; "
                "do it in your module"
            )
