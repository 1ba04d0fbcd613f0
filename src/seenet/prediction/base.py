"""The base of all predictors: masks and results from class scores. Imports no torch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any, overload

import numpy as np

from seenet.core.errors import DataError, UsageError
from seenet.core.labels import LabelSet
from seenet.core.progress import bar
from seenet.prediction.pictures import Picture, Pictures, as_array, several
from seenet.prediction.result import Result, Scores, stack_chunks, to_mask
from seenet.prediction.tiles import Tiling

MOST_SCALES = 16


class BasePredictor(ABC):
    """Segment pictures of any size, one at a time. A subclass computes the scores (`row_chunks`).

    Args:
        labels: what the K classes mean.
        channels: of a picture.
        precision: fp32, bf16, or that of an exported model.
        scales: factors on the picture's sides; the probabilities of all are averaged.
        flip: average with the mirrored picture too.
        tiling: how large pictures are cut; None: never.
        info: what a result file says of the model: {"file": ..., "sha256": ...}.

    Raises:
        UsageError: no scales, more than 16, or one outside 0 to 8.
    """

    device: Any
    tile_done: Callable[[], None] = staticmethod(lambda: None)
    """Function to call after each tile."""

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
        """Return what changes the answers besides the model: scales, flip, precision and tiles."""
        tiles = self.tiling.settings if self.tiling else {}
        return {"scales": list(self.scales), "flip": self.flip, "precision": self.precision, **tiles}

    @property
    @abstractmethod
    def machine(self) -> dict[str, Any]:
        """Return what decides rounding besides model and settings (processor, threads, libraries)
        as JSON values.
        """

    @abstractmethod
    def row_chunks(self, image: np.ndarray, size: tuple[int, int] | None = None) -> Iterator[Scores]:
        """Compute the class scores of a picture, some rows at a time, from the top.

        The network has run when this returns.

        Args:
            image: H x W x 3 uint8.
            size: height and width of the scores; None: those of the picture.

        Returns:
            float32 K x r x w: raw logits for one scale without flip, else the log of the mean
            probability over scales and flips. Softmax, argmax and cross entropy are right for both.

        Raises:
            DataError: another kind of array.
        """

    @abstractmethod
    def tiles(self, size: tuple[int, int]) -> int:
        """Count the tiles of a picture of this height and width, over all scales; 1: it is seen
        whole.
        """

    @contextmanager
    def tile_bar(self, size: tuple[int, int], name: str) -> Iterator[None]:
        """Show a progress bar of the tiles while the block runs, where a picture of this height and
        width has several.
        """
        count = self.tiles(size)
        if count == 1:
            yield
            return
        with bar(f"tiles of {name}", count, inner=True) as self.tile_done:
            try:
                yield
            finally:
                del self.tile_done

    def scores(self, image: np.ndarray, size: tuple[int, int] | None = None) -> Scores:
        """Return all `row_chunks` in one, K x h x w: 4 K bytes a pixel."""
        return stack_chunks(self.row_chunks(image, size), (size or image.shape)[0])

    def mask(self, image: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return the class of each pixel, h x w uint8 (uint16 over 256 classes). NotFiniteError
        where the network gives NaN.
        """
        return np.concatenate([to_mask(chunk) for chunk in self.row_chunks(image, size)])

    def result(self, image: np.ndarray, name: str, *, probabilities: bool = True) -> Result:
        """Segment an array; `name` is the stem of the result's files. With `probabilities` the
        scores are kept, on the device.
        """
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

        A picture is a path, the bytes of a picture file, a file opened with 'rb', a PIL image, or a
        uint8 array (H x W or H x W x 3). A result keeps its scores (4 K bytes a pixel, in main
        memory). DataError: unreadable picture, other kind of array; UsageError: what is no picture.
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
    """Return scales as a tuple, a bare number as one. UsageError where they make no sense."""
    given: Any = [scales] if isinstance(scales, Real) else scales
    try:
        found = () if isinstance(given, str) else tuple(map(float, given))
    except (TypeError, ValueError):
        found = ()
    if not 1 <= len(found) <= MOST_SCALES or not all(0 < scale <= 8 for scale in found):
        raise UsageError(f"scales {scales}: expected 1 to {MOST_SCALES} numbers over 0, at most 8")
    return found
