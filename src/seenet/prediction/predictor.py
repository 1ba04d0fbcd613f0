"""The predictor of a torch network: validation, `eval`, `predict` and the report all run this one."""

import logging
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seenet.core.device import choose_device
from seenet.core.errors import UsageError
from seenet.core.labels import LabelSet
from seenet.model.fast.prediction import prediction_form, state_of
from seenet.model.receptive_field import receptive_field
from seenet.model.segmenter import Window, full_size
from seenet.prediction.base import BasePredictor, tile_done
from seenet.prediction.tiled import (
    Grid,
    TiledGrid,
    averaged_row_chunks,
    pass_bytes,
    raw_row_chunks,
    scaled_part,
)
from seenet.prediction.tiles import Span, Tiling

log = logging.getLogger("seenet")

PRECISIONS = ("fp32", "bf16")


class Predictor(BasePredictor):
    """Segment pictures of any size with a torch network, one at a time.

    Args:
        model: called as model(images N3HW normalised, own_grid=True) -> N x K x h x w on the head's
            own grid; has `.normalization` and `.pad_multiple` (`Segmenter`). Moved to `device`.
        labels: what its K classes mean.
        device: auto, cpu, cuda (cuda:1), mps.
        precision: fp32, or bf16 by autocast.
        scales: factors on the picture's sides; the probabilities of all are averaged
            (docs/metrics.md).
        flip: average with the mirrored picture too.
        tiling: how large pictures are cut; None: never.
        info: what a result file says of the model: {"file": ..., "sha256": ...}.

    Raises:
        UsageError: settings that make no sense.
    """

    def __init__(
        self,
        model: nn.Module,
        labels: LabelSet,
        *,
        device: str | torch.device = "auto",
        precision: str = "fp32",
        scales: Sequence[float] | float = (1.0,),
        flip: bool = False,
        tiling: Tiling | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"precision {precision}: expected one of {', '.join(PRECISIONS)}")
        normalization: Any = model.normalization
        super().__init__(
            labels,
            channels=len(normalization.mean),
            precision=precision,
            scales=scales,
            flip=flip,
            tiling=tiling,
            info=info,
        )
        self.device = choose_device(device)
        self.model = model.to(self.device)
        self._warned = False
        self._prepare()
        # The reference is (v / 255 - mean) / std; one pass over the picture does as well.
        self._mean = torch.tensor(normalization.mean, dtype=torch.float32, device=self.device).mul(
            255
        )[:, None, None]
        self._std = torch.tensor(normalization.std, dtype=torch.float32, device=self.device).mul(
            255
        )[:, None, None]

    def __getstate__(self) -> dict[str, Any]:
        # The twin is made of the model again: its weights may lie in an order that torch cannot copy.
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("_lock", "_form", "_process")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def _prepare(self) -> None:
        self._lock, self._process = threading.Lock(), os.getpid()
        self._form = self._made()

    def row_chunks(
        self, image: np.ndarray, size: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """Compute `BasePredictor.row_chunks` on the device, resized once from the head's own grid.

        A picture and its mirror are one batch of 2.
        """
        self._check(image)
        network = self._network()
        size = size or (image.shape[0], image.shape[1])
        views = self._views((image.shape[0], image.shape[1]))
        cuts = [self._cut(view) for view in views]
        with torch.inference_mode(), evaluating(network), self._numerics():
            # A picture that is read by parts (no array) is resized part by part, too.
            parts = any(cuts) or not isinstance(image, np.ndarray)
            pixels = None if parts else self._normalized(image)
            grids = []
            for scale, view, cut in zip(self.scales, views, cuts, strict=True):
                if pixels is None:
                    scores: Any = self._tiles(network, image, view, cut)
                else:
                    scores = self._pass(network, resized(pixels, scale))
                grids.append(Grid(scores, full_size(view, size, self._multiple)))
            return (
                raw_row_chunks(grids[0], size)
                if self.scales == (1.0,) and not self.flip
                else averaged_row_chunks(grids, size)
            )

    def tiles(self, size: tuple[int, int]) -> int:
        """Count tiles as `BasePredictor.tiles`; a tile and its mirror are one."""
        tiling, count = self.tiling or Tiling(), 0
        for view in self._views(size):
            side = self._cut(view) or max(view)
            count += len(tiling.spans(view[0], side)) * len(tiling.spans(view[1], side))
        return count if count > len(self.scales) else 1

    def features(self, image: np.ndarray) -> dict[str, Tensor]:
        """Return the tensors of one pass by the paper's names (`Segmenter.forward_features`), 1 x C
        x h x w on the device.

        The pass is at the picture's own size, whatever `scales` and `flip` are.

        Raises:
            DataError: no H x W x 3 uint8 picture.
            UsageError: a model that does not show them.
        """
        self._check(image)
        self._after_fork()
        model: Any = self.model
        if not hasattr(model, "forward_features"):
            raise UsageError(
                f"{self.info.get('file', 'the model')}: shows nothing but its scores; use the .safetensors that it came from"
            )
        with torch.inference_mode(), evaluating(self.model), self._numerics(), self._cast():
            features: dict[str, Tensor] = model.forward_features(self._normalized(image))
            return features

    @property
    def machine(self) -> dict[str, Any]:
        """Return device, threads, processor and the version of torch."""
        cuda = self.device.type == "cuda"
        return {
            "device": self.device.type, "threads": torch.get_num_threads(), "torch": torch.__version__,
            "processor": torch.cuda.get_device_name(self.device) if cuda else torch.backends.cpu.get_cpu_capability(),
        }  # fmt: skip

    def _normalized(self, image: np.ndarray) -> Tensor:
        image = np.require(image, requirements=["C", "W"])
        # Bytes travel to the device, not floats. The batch of one comes before the permutation: after it, it would have another stride
        # than channels-last pictures have, by which torch chooses the order of all that follows.
        pixels = torch.from_numpy(image).to(self.device)[None].permute(0, 3, 1, 2).float()
        return pixels.sub_(self._mean).div_(self._std)

    @cached_property
    def _bytes_per_pixel(self) -> float:
        """Estimate the memory of a pass over one picture (and its mirror)."""
        return pass_bytes(self.model, self.channels) * (1 + self.flip)

    def _views(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Return height and width at each scale."""
        return [(scaled(size[0], scale), scaled(size[1], scale)) for scale in self.scales]

    def _cut(self, view: tuple[int, int]) -> int | None:
        """Return the side of the tiles of a view; None: it is seen whole. Warn once where tiles
        cannot be right.
        """
        if self.tiling is None or self.tiling.tile == "whole":
            return None
        # Its grid is finer than stride 4 in no network here; every scale has one.
        kept = 4 * self.labels.num_classes / 4**2 * (1 + self.flip) * len(self.scales)
        seen = self._bytes_per_pixel if self.tiling.tile == "auto" else 0.0
        side = self.tiling.side(view, seen, kept)
        if side is not None and not self._warned:
            model: Any = self.model
            self._warned, field = True, receptive_field(model)
            if math.isinf(field.radius):
                log.warning(
                    "%s; tiles of a picture see less than it, and their scores differ from a whole pass's: --tile whole",
                    field.reason,
                )
        return side

    def _tiles(
        self, network: nn.Module, image: Any, view: tuple[int, int], cut: int | None
    ) -> TiledGrid:
        def run(rows: Span, columns: Span, window: Window) -> Tensor:
            # Asked for whenever its rows are; the contexts of who made it have ended by then.
            with torch.inference_mode(), evaluating(network), self._numerics():
                seen = scaled_part(image, view, rows, columns, self._normalized)
                if self.flip:
                    seen = torch.cat(
                        [seen, scaled_part(image[:, ::-1], view, rows, columns, self._normalized)]
                    )
                scores = self._pass(network, seen, window)
                tile_done.get()()
                return scores

        return TiledGrid(run, view, self.tiling or Tiling(), cut or max(view), self._multiple)

    @property
    def _multiple(self) -> int:
        model: Any = self.model
        return int(model.pad_multiple)

    def _pass(self, model: nn.Module, pixels: Tensor, window: Window | None = None) -> Tensor:
        """Run the network: scores on the head's own grid, of a tile (`window`) or of a whole view."""
        if window is None and self.flip:
            pixels = torch.cat([pixels, pixels.flip(-1)])
        with self._cast():
            scores: Tensor = (
                model(pixels, own_grid=True)
                if window is None
                else model(pixels, own_grid=True, window=window)
            )
        return scores

    def _network(self) -> nn.Module:
        """Return the model, on the CPU its twin that predicts faster; fold that anew where the
        model has changed since.
        """
        self._after_fork()
        known, form = self._form
        if known == self._state():
            return form
        with self._lock:
            known, form = self._form
            if known != self._state():
                # The old twin goes first: both would be in memory at once.
                form = self.model
                self._form = (None, form)
                self._form = known, form = self._made()
        return form

    def _made(self) -> tuple[tuple[Any, ...] | None, nn.Module]:
        """Return the model's state and the form of it that predicts."""
        state = self._state()
        if self.device.type != "cpu":
            return state, self.model
        return state, prediction_form(self.model, "fused" if self.precision == "fp32" else "plain")

    def _after_fork(self) -> None:
        """Let torch compute on one thread in a forked process: it would wait for ever for the
        threads of its parent.
        """
        if self._process == os.getpid():
            return
        # Whoever held the lock stayed in the parent.
        self._lock, self._process = threading.Lock(), os.getpid()
        if self.device.type == "cpu" and torch.get_num_threads() > 1:
            torch.set_num_threads(1)
            log.warning(
                "predicting in a forked process, on one thread: torch's others do not outlive a fork; spawn it to use all"
            )

    def _state(self) -> tuple[Any, ...]:
        return state_of(self.model) if self.device.type == "cpu" else ()

    def _cast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @contextmanager
    def _numerics(self) -> Iterator[None]:
        """Keep fp32 exact: CUDA's convolutions would take TF32, with 10 bits of mantissa, on their
        own.
        """
        if self.device.type != "cuda":
            yield
            return
        allowed = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = allowed


def scaled(side: int, scale: float) -> int:
    """Return a side of a picture that is resized by a factor: max(1, floor(scale * side + 0.5))."""
    return max(1, math.floor(scale * side + 0.5))


def resized(pixels: Tensor, scale: float) -> Tensor:
    """Resize N x C x H x W by a factor (`scaled`): bilinear, antialiased when shrinking."""
    height, width = (scaled(side, scale) for side in pixels.shape[-2:])
    if (height, width) == tuple(pixels.shape[-2:]):
        return pixels
    return F.interpolate(
        pixels, (height, width), mode="bilinear", align_corners=False, antialias=scale < 1
    )


_evaluated: WeakKeyDictionary[nn.Module, tuple[int, list[nn.Module]]] = WeakKeyDictionary()
"""Of each network that is in eval mode for a while: for how many blocks, and which of its modules
were in training mode before.
"""
_evaluating = threading.Lock()


def _forget_threads() -> None:
    global _evaluating
    _evaluating = threading.Lock()
    _evaluated.clear()


# In a forked process the threads that were inside are not there to leave.
os.register_at_fork(after_in_child=_forget_threads)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into eval mode within the block; afterwards each module is as it was (norms may
    be frozen one by one).

    Of several threads the first to enter changes the modes, and the last to leave restores them.
    """
    with _evaluating:
        blocks, training = _evaluated.get(model) or (
            0,
            [module for module in model.modules() if module.training],
        )
        _evaluated[model] = blocks + 1, training
        for module in training:
            module.training = False
    try:
        yield
    finally:
        with _evaluating:
            blocks, training = _evaluated.pop(model)
            if blocks > 1:
                _evaluated[model] = blocks - 1, training
            else:
                for module in training:
                    module.training = True
