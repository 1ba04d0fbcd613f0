"""What every predictor does, whatever computes its scores. Imports no torch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from typing import Any, overload

import numpy as np

from seenet.core.errors import DataError, UsageError
from seenet.core.labels import LabelSet
from seenet.core.progress import bar
from seenet.prediction.pictures import Picture, Pictures, as_array, several
from seenet.prediction.result import Result
from seenet.prediction.scores import Scores, joined, to_mask
from seenet.prediction.tiles import Tiling

MOST_SCALES = 16

tile_done: ContextVar[Callable[[], None]] = ContextVar("tile_done", default=lambda: None)
"""Called after each tile that this thread computes: one predictor serves several threads, each with a bar of its own."""


class BasePredictor(ABC):
    """Segments pictures of any size, one at a time, by the `stripes` of its children.

    `labels` are what the K classes mean; `channels` those of a picture; `info` is what a result file says of the model
    ({"file": ..., "sha256": ...}); `device` is where scores are. UsageError for scales that make no sense.
    """

    device: Any

    def __init__(
        self,
        labels: LabelSet,
        *,
        channels: int,
        precision: str,
        scales: Sequence[float] | float,
        flip: bool,
        tiling: Tiling | None,
        info: dict[str, Any] | None,
    ) -> None:
        self.labels, self.channels = labels, channels
        self.precision, self.scales, self.flip = precision, _scales(scales), flip
        self.tiling = tiling
        self.info = info or {}

    @property
    def settings(self) -> dict[str, Any]:
        """What changes its answers besides the model: scales, flip, precision, and how pictures are cut, where they are."""
        tiles = self.tiling.settings if self.tiling else {}
        return {"scales": list(self.scales), "flip": self.flip, "precision": self.precision, **tiles}

    @property
    @abstractmethod
    def machine(self) -> dict[str, Any]:
        """What decides the rounding of its scores besides model and settings: processor, threads, libraries; JSON values."""

    @abstractmethod
    def stripes(self, image: np.ndarray, size: tuple[int, int] | None = None) -> Iterator[Scores]:
        """Class scores of an H x W x 3 uint8 picture at `size` (default H x W), float32 K x r x w for some rows after others, from the top.

        One scale without flip: raw logits. Else the log of the mean probability over scales and flips. Softmax, argmax and cross entropy
        are right for both. The network has run when this returns. DataError for another kind of array.
        """

    @abstractmethod
    def tiles(self, size: tuple[int, int]) -> int:
        """How many tiles a picture of this height and width is seen in, over all scales; 1: it is seen whole."""

    @contextmanager
    def tile_bar(self, size: tuple[int, int], name: str) -> Iterator[None]:
        """Show how many tiles of a picture of this height and width this thread has done while the block runs, where there are several."""
        count = self.tiles(size)
        if count == 1:
            yield
            return
        with bar(f"tiles of {name}", count, inner=True) as done:
            before = tile_done.set(done)
            try:
                yield
            finally:
                tile_done.reset(before)

    def scores(self, image: np.ndarray, size: tuple[int, int] | None = None) -> Scores:
        """All `stripes` in one, K x h x w: 4 K bytes a pixel."""
        return joined(self.stripes(image, size), (size or image.shape)[0])

    def mask(self, image: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Class of each pixel, h x w uint8 (uint16 over 256 classes). NotFiniteError where the network gives NaN."""
        return np.concatenate([to_mask(stripe) for stripe in self.stripes(image, size)])

    def result(self, image: np.ndarray, name: str, *, probabilities: bool = True) -> Result:
        """The result of an array, under the name that its files will have; its scores, for `probabilities`, stay on the device."""
        if not probabilities:
            return Result(self.mask(image), self.labels, image, None, name)
        scores = self.scores(image)
        return Result(to_mask(scores), self.labels, image, scores, name)

    @overload
    def __call__(self, pictures: Picture) -> Result: ...
    @overload
    def __call__(self, pictures: Pictures) -> list[Result]: ...
    def __call__(self, pictures: Picture | Pictures) -> Result | list[Result]:
        """Segment a picture, or each of a list, tuple or generator of them.

        A picture is a path, the bytes of a picture file, a file opened with 'rb', a PIL image, or a uint8 array (H x W or H x W x 3).
        A result keeps its scores (4 K bytes a pixel, in main memory). DataError: unreadable picture, other kind of
        array; UsageError: what is no picture.
        """
        if not several(pictures):
            return self._result(pictures, "image")
        return [self._result(picture, f"image-{number}") for number, picture in enumerate(pictures, start=1)]

    def _result(self, picture: Any, name: str) -> Result:
        image, name = as_array(picture, name)
        scores = self.scores(image)
        return Result(to_mask(scores), self.labels, image, scores if isinstance(scores, np.ndarray) else scores.cpu(), name)

    def _check(self, image: np.ndarray) -> None:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != self.channels or 0 in image.shape:
            raise DataError(
                f"picture: found an array {image.dtype} {'x'.join(map(str, image.shape))}, expected uint8 height x "
                f"width x {self.channels} with at least one pixel; convert it (values 0 to 255, channels last, RGB)"
            )


def _scales(scales: Sequence[float] | float) -> tuple[float, ...]:
    """As a tuple, one of a bare number; UsageError where there are none or too many, or one makes no sense."""
    given: Any = [scales] if isinstance(scales, Real) else scales
    try:
        found = () if isinstance(given, str) else tuple(map(float, given))
    except (TypeError, ValueError):
        found = ()
    if not 1 <= len(found) <= MOST_SCALES or not all(0 < scale <= 8 for scale in found):
        raise UsageError(f"scales {scales}: expected 1 to {MOST_SCALES} numbers over 0, at most 8")
    return found
