"""The one predictor: validation, `eval`, `predict` and the report all run this."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.core.errors import UsageError
from seenet.core.labels import LabelSet
from seenet.model.fast.prediction import prediction_form, state_of
from seenet.model.segmenter import full_size
from seenet.prediction.base import BasePredictor
from seenet.prediction.device import choose_device
from seenet.prediction.scores import to_mask
from seenet.prediction.stripes import Grid, averaged_stripes, raw_stripes

__all__ = ["PRECISIONS", "Predictor", "evaluating", "resized", "to_mask"]

PRECISIONS = ("fp32", "bf16")


class Predictor(BasePredictor):
    """A network ready to segment pictures of any size, one at a time.

    Args:
        model: called as model(images N3HW normalised, own_grid=True) -> N x K x h x w on the head's own grid; has `.normalization` and
            `.pad_multiple` (`Segmenter`). Moved to `device`.
        labels: what its K classes mean.
        device: auto, cpu, cuda (cuda:1), mps.
        precision: fp32, or bf16 by autocast.
        scales: factors on the picture's sides; the probabilities of all are averaged (docs/metrics.md).
        flip: average with the mirrored picture too.
        info: what a result file says of the model: {"file": ..., "sha256": ...}.

    Raises UsageError for settings that make no sense.
    """

    def __init__(
        self,
        model: nn.Module,
        labels: LabelSet,
        *,
        device: str | torch.device = "auto",
        precision: str = "fp32",
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        info: dict[str, Any] | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"precision {precision}: expected one of {', '.join(PRECISIONS)}")
        normalization: Any = model.normalization
        super().__init__(labels, channels=len(normalization.mean), precision=precision, scales=scales, flip=flip, info=info)
        self.device = choose_device(device)
        self.model = model.to(self.device)
        self._form: nn.Module | None = None
        self._form_of: tuple[Any, ...] = ()
        # The reference is (v / 255 - mean) / std; one pass over the picture does as well.
        self._mean = torch.tensor(normalization.mean, device=self.device).mul(255)[:, None, None]
        self._std = torch.tensor(normalization.std, device=self.device).mul(255)[:, None, None]

    def stripes(self, image: np.ndarray, size: tuple[int, int] | None = None) -> Iterator[Tensor]:
        """As `BasePredictor.stripes`, on the device, resized once from the head's own grid; a picture and its mirror are one batch of 2."""
        self._check(image)
        size = size or (image.shape[0], image.shape[1])
        with torch.inference_mode(), evaluating(self.model), self._numerics():
            pixels = self._normalized(image)
            if self.scales == (1.0,) and not self.flip:
                return raw_stripes(self._grid(pixels, size), size)
            views = (resized(pixels, scale) for scale in self.scales)
            return averaged_stripes([self._grid(torch.cat([view, view.flip(-1)]) if self.flip else view, size) for view in views], size)

    def features(self, image: np.ndarray) -> dict[str, Tensor]:
        """The tensors of one pass over an H x W x 3 uint8 picture by the paper's names, 1 x C x h x w on the device.

        As `Segmenter.forward_features`; at the picture's own size, whatever `scales` and `flip` are. DataError for
        another kind of array; UsageError for a model that does not show them.
        """
        self._check(image)
        model: Any = self.model
        if not hasattr(model, "forward_features"):
            raise UsageError(f"{self.info.get('file', 'the model')}: shows nothing but its scores; use the .safetensors that it came from")
        with torch.inference_mode(), evaluating(self.model), self._numerics(), self._cast():
            features: dict[str, Tensor] = model.forward_features(self._normalized(image))
            return features

    @property
    def machine(self) -> dict[str, Any]:
        """As `BasePredictor.machine`."""
        cuda = self.device.type == "cuda"
        return {
            "device": self.device.type, "threads": torch.get_num_threads(), "torch": torch.__version__,
            "processor": torch.cuda.get_device_name(self.device) if cuda else torch.backends.cpu.get_cpu_capability(),
        }  # fmt: skip

    def _normalized(self, image: np.ndarray) -> Tensor:
        if not image.flags.writeable or any(stride < 0 for stride in image.strides):
            image = image.copy()
        # Bytes travel to the device, not floats; the permuted view is in channels-last order already.
        pixels = torch.from_numpy(image).to(self.device).permute(2, 0, 1)[None].float()
        return pixels.sub_(self._mean).div_(self._std).contiguous(memory_format=torch.channels_last)

    def _grid(self, pixels: Tensor, size: tuple[int, int]) -> Grid:
        model: Any = self._network()
        with self._cast():
            scores: Tensor = model(pixels, own_grid=True)
        height, width = pixels.shape[-2:]
        return Grid(scores, full_size((height, width), size, model.pad_multiple))

    def _network(self) -> nn.Module:
        """The model, on the CPU as its twin that predicts faster; made anew where the model has changed since."""
        if self.device.type != "cpu":
            return self.model
        state = state_of(self.model)
        if self._form is None or state != self._form_of:
            # The old one goes first: both would be in memory at once.
            self._form = None
            self._form, self._form_of = prediction_form(self.model, fused=self.precision == "fp32"), state
        return self._form

    def _cast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @contextmanager
    def _numerics(self) -> Iterator[None]:
        """fp32 means fp32: CUDA's convolutions would take TF32, with 10 bits of mantissa, on their own."""
        if self.device.type != "cuda":
            yield
            return
        allowed = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = allowed


def resized(pixels: Tensor, scale: float) -> Tensor:
    """N x C x H x W at max(1, floor(s H + 0.5)) x max(1, floor(s W + 0.5)): bilinear, antialiased when shrinking."""
    height, width = (max(1, math.floor(scale * side + 0.5)) for side in pixels.shape[-2:])
    if (height, width) == tuple(pixels.shape[-2:]):
        return pixels
    return F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False, antialias=scale < 1)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode within the block; afterwards each module is as it was (norms may be frozen one by one)."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
