"""What every predictor does, whatever computes its scores. Imports no torch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.core.images import from_pil, read_image
from seenet.core.labels import LabelSet
from seenet.core.progress import bar
from seenet.prediction.result import Result
from seenet.prediction.scores import Scores, joined, to_mask
from seenet.prediction.tiles import Tiling

MOST_SCALES = 16

Picture = str | Path | Image.Image | np.ndarray


class BasePredictor(ABC):
    """Segments pictures of any size, one at a time, by the `stripes` of its children.

    `labels` are what the K classes mean; `channels` those of a picture; `info` is what a result file says of the model
    ({"file": ..., "sha256": ...}); `device` is where scores are. UsageError for scales that make no sense.
    """

    device: Any
    tile_done: Callable[[], None] = staticmethod(lambda: None)
    """Called after each tile."""

    def __init__(
        self,
        labels: LabelSet,
        *,
        channels: int,
        precision: str,
        scales: Sequence[float],
        flip: bool,
        tiling: Tiling | None,
        info: dict[str, Any] | None,
    ) -> None:
        if not 1 <= len(scales) <= MOST_SCALES or not all(0 < scale <= 8 for scale in scales):
            raise UsageError(f"scales {list(scales)}: expected 1 to {MOST_SCALES} numbers over 0, at most 8")
        self.labels, self.channels = labels, channels
        self.precision, self.scales, self.flip = precision, tuple(float(scale) for scale in scales), flip
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
        """Shows how many tiles of a picture of this height and width are done while the block runs, where there are several."""
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
    def __call__(self, pictures: list[Picture]) -> list[Result]: ...
    def __call__(self, pictures: Picture | list[Picture]) -> Result | list[Result]:
        """Segment a path, PIL image or uint8 array (H x W or H x W x 3), or each of a list of them.

        A result keeps its scores (4 K bytes a pixel, in main memory). DataError: unreadable picture, other kind of
        array.
        """
        if isinstance(pictures, list):
            return [self._result(picture, f"image-{number}") for number, picture in enumerate(pictures, start=1)]
        return self._result(pictures, "image")

    def _result(self, picture: Picture, name: str) -> Result:
        if isinstance(picture, str | Path):
            image, name = read_image(Path(picture)), Path(picture).stem
        elif isinstance(picture, Image.Image):
            try:
                image = from_pil(picture)
            except OSError as error:
                # Pillow decodes when pixels are asked for, so a file that was opened may still be bad.
                raise DataError(f"{name}: the PIL image cannot be decoded ({error}); copy its file again") from None
        else:
            image = np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else picture
        scores = self.scores(image)
        return Result(to_mask(scores), self.labels, image, scores if isinstance(scores, np.ndarray) else scores.cpu(), name)

    def _check(self, image: np.ndarray) -> None:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != self.channels or 0 in image.shape:
            raise DataError(
                f"picture: found an array {image.dtype} {'x'.join(map(str, image.shape))}, expected uint8 height x "
                f"width x {self.channels} with at least one pixel; convert it (values 0 to 255, channels last, RGB)"
            )
