"""The base class of all predictors: masks and results from class scores, without torch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from typing import Any, overload

import numpy as np

from seenet.core.errors import DataError, UsageError
from seenet.core.labels import LabelSet
from seenet.core.picture_reader import PictureReader
from seenet.core.progress import bar
from seenet.prediction.pictures import Picture, Pictures, as_array, several
from seenet.prediction.result import Result, Scores, stack_chunks, to_mask
from seenet.prediction.tiles import Tiling

MOST_SCALES = 16

tile_done: ContextVar[Callable[[], None]] = ContextVar("tile_done", default=lambda: None)
"""Called after each tile. A context variable, since threads that share a predictor have their own
progress bars.
"""


class BasePredictor(ABC):
    """Predictor that segments pictures of any size, one at a time.

    A subclass computes the scores (`row_chunks`).

    Args:
        labels: Names and colours of the K classes.
        channels: Channels C of a picture.
        reader: How files become pictures.
        precision: fp32, bf16, or the precision of an exported model.
        scales: Factors on the picture's sides; the probabilities of all scales are averaged.
        flip: Average with the mirrored picture too.
        tiling: How to cut large pictures into tiles; None: never.
        info: The model as result files name it: {"file": ..., "sha256": ...}.

    Raises:
        UsageError: No scales, more than 16, or a scale outside 0 to 8.
    """

    device: Any

    def __init__(
        self,
        labels: LabelSet,
        *,
        channels: int,
        reader: PictureReader,
        precision: str,
        scales: Sequence[float] | float,
        flip: bool,
        tiling: Tiling | None,
        info: dict[str, Any] | None,
    ) -> None:
        self.labels, self.channels, self.reader = labels, channels, reader
        self.precision, self.scales, self.flip = precision, _checked_scales(scales), flip
        self.tiling, self.info = tiling or Tiling(), info or {}

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that change the scores: scales, flip, precision and tiles."""
        return {
            "scales": list(self.scales),
            "flip": self.flip,
            "precision": self.precision,
            **self.tiling.settings,
        }

    @property
    @abstractmethod
    def machine(self) -> dict[str, Any]:
        """Return what else decides rounding (processor, threads, libraries), as JSON values."""

    @abstractmethod
    def row_chunks(
        self, image: np.ndarray, size: tuple[int, int] | None = None
    ) -> Iterator[Scores]:
        """Run the network on a picture and yield its class scores by rows, from the top.

        The network has run when this returns; the scores are resized chunk by chunk.

        Args:
            image: H x W x C uint8.
            size: Height and width of the scores; None: those of the picture.

        Returns:
            float32 K x r x w: logits for one scale without flip, else the log of the mean
            probability over scales and flips. Softmax, argmax and cross entropy are right for both.

        Raises:
            DataError: The array has another type or shape.
        """

    @abstractmethod
    def tiles(self, size: tuple[int, int]) -> int:
        """Count the tiles of a picture of this height and width over all scales; 1: no tiles."""

    @contextmanager
    def tile_bar(self, size: tuple[int, int], name: str) -> Iterator[None]:
        """Show a progress bar of the tiles that this thread computes while the block runs.

        A picture of one tile has no bar.
        """
        count = self.tiles(size)
        if count == 1:
            yield
            return
        with bar(f"tiles of {name}", count, inner=True) as advance:
            token = tile_done.set(advance)
            try:
                yield
            finally:
                tile_done.reset(token)

    def scores(self, image: np.ndarray, size: tuple[int, int] | None = None) -> Scores:
        """Return the scores of all `row_chunks` as one K x h x w: 4 K bytes a pixel."""
        return stack_chunks(self.row_chunks(image, size), (size or image.shape)[0])

    def mask(self, image: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return the class of each pixel, h x w uint8 (uint16 over 256 classes).

        Raises:
            NotFiniteError: The network returns NaN or infinity.
        """
        return np.concatenate([to_mask(chunk) for chunk in self.row_chunks(image, size)])

    def result(self, image: np.ndarray, name: str, *, probabilities: bool = True) -> Result:
        """Segment an array.

        Args:
            image: H x W x C uint8.
            name: Stem of the result's files.
            probabilities: Keep the scores, in main memory.
        """
        if not probabilities:
            return Result(self.mask(image), self.labels, image, None, name)
        scores = self.scores(image)
        kept = scores if isinstance(scores, np.ndarray) else scores.cpu()
        return Result(to_mask(scores), self.labels, image, kept, name)

    @overload
    def __call__(self, pictures: Picture) -> Result: ...
    @overload
    def __call__(self, pictures: Pictures) -> list[Result]: ...
    def __call__(self, pictures: Picture | Pictures) -> Result | list[Result]:
        """Segment a picture, or each of a list, tuple or generator of them.

        Args:
            pictures: A path, the bytes of a picture file, a file opened with 'rb', a PIL image, or
                a uint8 array (H x W or H x W x C), or several of these.

        Returns:
            A result with its scores (4 K bytes a pixel, in main memory), or a list of results.

        Raises:
            DataError: The picture is unreadable, or an array of another type or shape.
            UsageError: The argument is not a picture.
        """
        if not several(pictures):
            return self.result(*as_array(pictures, "image", self.reader))
        return [
            self.result(*as_array(picture, f"image-{number}", self.reader))
            for number, picture in enumerate(pictures, start=1)
        ]

    def _check(self, image: np.ndarray) -> None:
        if (
            image.dtype != np.uint8
            or image.ndim != 3
            or image.shape[2] != self.channels
            or 0 in image.shape
        ):
            raise DataError(
                f"picture: found an array {image.dtype} {'x'.join(map(str, image.shape))}, "
                f"expected uint8 height x width x {self.channels} with at least one pixel; "
                f"convert it (values 0 to 255, channels last{', RGB' * (self.channels == 3)})"
            )


def _checked_scales(scales: Sequence[float] | float) -> tuple[float, ...]:
    """Return one or several scales as a tuple; raise UsageError for values out of range."""
    values: Any = [scales] if isinstance(scales, Real) else scales
    try:
        checked = () if isinstance(values, str) else tuple(map(float, values))
    except (TypeError, ValueError):
        checked = ()
    if not 1 <= len(checked) <= MOST_SCALES or not all(0 < scale <= 8 for scale in checked):
        raise UsageError(
            f"scales {scales}: expected 1 to {MOST_SCALES} numbers above 0 and at most 8"
        )
    return checked
