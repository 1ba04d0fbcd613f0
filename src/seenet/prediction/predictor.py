"""The predictor of a torch network, which validation, `eval`, `predict` and the report all use."""

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
    """Predictor that runs a torch network.

    Args:
        model: Called as model(images NCHW normalised, own_grid=True) -> N x K x h x w on the head's
            own grid; has `.normalization`, `.reader` and `.pad_multiple` (`Segmenter`). Moved to
            `device`.
        labels: Names and colours of its K classes.
        device: auto, cpu, cuda (cuda:1), mps.
        precision: fp32, or bf16 by autocast.
        scales: Factors on the picture's sides; the probabilities of all scales are averaged
            (docs/metrics.md).
        flip: Average with the mirrored picture too.
        tiling: How to cut large pictures into tiles; None: never.
        info: The model as result files name it: {"file": ..., "sha256": ...}.

    Raises:
        UsageError: An unknown device or precision, or scales out of range.
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
        network: Any = model
        normalization = network.normalization
        super().__init__(
            labels,
            channels=len(normalization.mean),
            reader=network.reader,
            precision=precision,
            scales=scales,
            flip=flip,
            tiling=tiling,
            info=info,
        )
        self.device = choose_device(device)
        self.model = model.to(self.device)
        self._pad_multiple = int(network.pad_multiple)
        self._warned = False
        self._prepare()
        # The reference is (v / 255 - mean) / std; this way one pass over the picture is enough.
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=self.device).mul(255)[:, None, None]
            for values in (normalization.mean, normalization.std)
        )

    def __getstate__(self) -> dict[str, Any]:
        # The form is made again: torch cannot copy weights in oneDNN's own order.
        left_out = ("_lock", "_form", "_state", "_process")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def _prepare(self) -> None:
        self._lock, self._process = threading.Lock(), os.getpid()
        self._form, self._state = self.model, ()
        self._network()

    def row_chunks(
        self, image: np.ndarray, size: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """Compute `BasePredictor.row_chunks` on the device, resized once from the head's own grid.

        A picture and its mirror are one batch of 2.
        """
        self._check(image)
        network = self._network()
        own_size = (image.shape[0], image.shape[1])
        size = size or own_size
        views = self._scaled_sizes(own_size)
        tile_sides = [self._tile_side(view) for view in views]
        with torch.inference_mode(), evaluating(network), self._numerics():
            # A picture that is read by windows (not an array) is resized by parts too.
            by_parts = any(tile_sides) or not isinstance(image, np.ndarray)
            pixels = None if by_parts else self._normalized(image)
            grids = []
            for scale, view, side in zip(self.scales, views, tile_sides, strict=True):
                scores: Tensor | TiledGrid
                if pixels is None:
                    scores = self._tiled_grid(network, image, view, side)
                else:
                    batch = resized(pixels, scale)
                    batch = torch.cat([batch, batch.flip(-1)]) if self.flip else batch
                    scores = self._forward(network, batch)
                grids.append(Grid(scores, full_size(view, size, self._pad_multiple)))
            if self.scales == (1.0,) and not self.flip:
                return raw_row_chunks(grids[0], size)
            return averaged_row_chunks(grids, size)

    def tiles(self, size: tuple[int, int]) -> int:
        """Count tiles as `BasePredictor.tiles`; a tile and its mirror are one."""
        count = 0
        for view in self._scaled_sizes(size):
            side = self._tile_side(view) or max(view)
            count += len(self.tiling.spans(view[0], side)) * len(self.tiling.spans(view[1], side))
        return count if count > len(self.scales) else 1

    def features(self, image: np.ndarray) -> dict[str, Tensor]:
        """Return the tensors of one pass by the paper's names (`Segmenter.forward_features`).

        The pass is at the picture's own size, whatever `scales` and `flip` are.

        Returns:
            1 x C x h x w each, on the device.

        Raises:
            DataError: The picture is not H x W x C uint8.
            UsageError: The model has no `forward_features`.
        """
        self._check(image)
        self._after_fork()
        network: Any = self.model
        if not hasattr(network, "forward_features"):
            raise UsageError(
                f"{self.info.get('file', 'the model')}: shows nothing but its scores; use the "
                ".safetensors that it came from"
            )
        with torch.inference_mode(), evaluating(network), self._numerics(), self._autocast():
            features: dict[str, Tensor] = network.forward_features(self._normalized(image))
            return features

    @property
    def machine(self) -> dict[str, Any]:
        """Return device, threads, processor and the version of torch."""
        processor = torch.backends.cpu.get_cpu_capability()
        if self.device.type == "cuda":
            processor = torch.cuda.get_device_name(self.device)
        return {
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "processor": processor,
        }

    def _normalized(self, image: np.ndarray) -> Tensor:
        image = np.require(image, requirements=["C", "W"])
        # Bytes travel to the device, not floats. The batch axis comes before the permutation:
        # after it, its stride would not be that of channels-last pictures, by which torch chooses
        # the memory order of all that follows.
        pixels = torch.from_numpy(image).to(self.device)[None].permute(0, 3, 1, 2).float()
        return pixels.sub_(self._mean).div_(self._std)

    @cached_property
    def _bytes_per_pixel(self) -> float:
        """Estimate the memory of a pass over one picture (and its mirror)."""
        return pass_bytes(self.model, self.channels) * (1 + self.flip)

    def _scaled_sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        return [(scaled(size[0], scale), scaled(size[1], scale)) for scale in self.scales]

    def _tile_side(self, view: tuple[int, int]) -> int | None:
        """Return the side of the tiles of a scaled picture; None: it is not cut.

        Warn once where the network looks at the whole picture.
        """
        if self.tiling.tile == "whole":
            return None
        # No network here has a grid finer than stride 4; every scale has a grid.
        kept = 4 * self.labels.num_classes / 4**2 * (1 + self.flip) * len(self.scales)
        seen = self._bytes_per_pixel if self.tiling.tile == "auto" else 0.0
        side = self.tiling.side(view, seen, kept)
        if side is not None and not self._warned:
            network: Any = self.model
            self._warned, field = True, receptive_field(network)
            if math.isinf(field.radius):
                log.warning(
                    "%s; a tile sees only a part of it, so scores differ from those of a whole "
                    "pass: use --tile whole",
                    field.reason,
                )
        return side

    def _tiled_grid(
        self, network: nn.Module, image: Any, view: tuple[int, int], side: int | None
    ) -> TiledGrid:
        def run(rows: Span, columns: Span, window: Window) -> Tensor:
            # Called when its rows are read; the contexts of `row_chunks` have ended by then.
            with torch.inference_mode(), evaluating(network), self._numerics():
                pictures = [image, image[:, ::-1]] if self.flip else [image]
                parts = [
                    scaled_part(picture, view, rows, columns, self._normalized)
                    for picture in pictures
                ]
                batch = torch.cat(parts) if self.flip else parts[0]
                scores = self._forward(network, batch, window=window)
                tile_done.get()()
                return scores

        return TiledGrid(run, view, self.tiling, side or max(view), self._pad_multiple)

    def _forward(self, network: nn.Module, batch: Tensor, **options: Any) -> Tensor:
        with self._autocast():
            scores: Tensor = network(batch, own_grid=True, **options)
        return scores

    def _network(self) -> nn.Module:
        """Return the network to run: the model, or on the CPU its faster form.

        The form is made again after the model has changed.
        """
        self._after_fork()
        if self.device.type != "cpu":
            return self.model
        with self._lock:
            state = state_of(self.model)
            if state != self._state:
                # The old form is freed first: both would be in memory at once.
                self._form = self.model
                self._form = prediction_form(
                    self.model, "fused" if self.precision == "fp32" else "plain"
                )
                self._state = state
            return self._form

    def _after_fork(self) -> None:
        """Let torch compute on one thread in a forked process: it would wait forever for the
        threads of its parent.
        """
        if self._process == os.getpid():
            return
        # A thread that held the lock stayed in the parent.
        self._lock, self._process = threading.Lock(), os.getpid()
        if self.device.type == "cpu" and torch.get_num_threads() > 1:
            torch.set_num_threads(1)
            log.warning(
                "predicting in a forked process on one thread: torch's other threads do not "
                "survive a fork; start the process by spawn to use all"
            )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @contextmanager
    def _numerics(self) -> Iterator[None]:
        """Keep fp32 exact: CUDA's convolutions would use TF32, with 10 bits of mantissa."""
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


_in_eval_mode: WeakKeyDictionary[nn.Module, list[Any]] = WeakKeyDictionary()
"""By network: the number of blocks of `evaluating` that are open, and the modules that were in
training mode before.
"""
_eval_mode_lock = threading.Lock()


def _reset_after_fork() -> None:
    global _eval_mode_lock
    _eval_mode_lock = threading.Lock()
    _in_eval_mode.clear()


# In a forked process the threads that were inside a block do not exist.
os.register_at_fork(after_in_child=_reset_after_fork)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into eval mode within the block, and then each module back into its own mode.

    Norms may be frozen one by one. Of several threads the first to enter changes the modes, and the
    last to leave restores them.
    """
    with _eval_mode_lock:
        training = [module for module in model.modules() if module.training]
        entry = _in_eval_mode.setdefault(model, [0, training])
        entry[0] += 1
        for module in entry[1]:
            module.training = False
    try:
        yield
    finally:
        with _eval_mode_lock:
            entry[0] -= 1
            if entry[0] == 0:
                del _in_eval_mode[model]
                for module in entry[1]:
                    module.training = True
