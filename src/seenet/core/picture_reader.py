"""How the pictures of a data set become arrays; a model keeps it, so that it reads others alike."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from PIL import Image

from seenet.core.arrays import finite_limits, no_range, read_array, scaled
from seenet.core.image_files import safe_image_open
from seenet.core.images import (
    DEEP,
    eight_bits,
    from_pil,
    highest_value,
    image_size,
    pil_bands,
    read_image,
    turned_back,
)
from seenet.core.raster import TIFFS, RasterPicture, lacks_bands, opened_raster, window_pixels

Range = tuple[float, float]


@dataclass(frozen=True)
class PictureReader:
    """Reader of image files; called with a path, it returns H x W x C uint8.

    Attributes:
        channels: numbers of the bands, from 1; None: red, green and blue, as the file says.
        value_range: values that become 0 and 255, one pair, or one for each of `channels`; those
            outside are clipped. None: the whole range of 8 or 16 bits.
        upright: whether pictures are rotated by their EXIF tag.
    """

    channels: tuple[int, ...] | None = None
    value_range: Range | tuple[Range, ...] | None = None
    upright: bool = True

    @property
    def count(self) -> int:
        """Number of channels C."""
        return len(self.channels) if self.channels else 3

    def __call__(self, path: Path) -> np.ndarray:
        """Read a picture.

        Raises:
            DataError: as `read_image`; a band is missing, or values have no range.
        """
        if self.channels is None:
            return read_image(path, upright=self.upright, value_range=self._one_range)
        if path.suffix.lower() == ".npy":
            values = read_array(path)
            return self._chosen(values if values.ndim == 3 else values[..., None], str(path))
        if path.suffix.lower() in TIFFS:
            with self.opened(path) as picture:
                pixels: np.ndarray = picture[:, :]
                return pixels
        with safe_image_open(path) as image:
            return self.from_image(image, str(path))

    def decode(self, content: bytes, name: str) -> np.ndarray:
        """Decode an image file in memory; `name` is used in errors."""
        with safe_image_open(Path(name), content) as image:
            return self.from_image(image, name)

    def from_image(self, image: Image.Image, name: str) -> np.ndarray:
        """Convert a Pillow image; `name` is used in errors."""
        if not self.upright:
            turned_back(image)
        if self.channels is None:
            return from_pil(image, name, self._one_range)
        return self._chosen(pil_bands(image, name), name)

    def window_pixels(self, path: Path) -> int:
        """Return the pixels of a picture that is read by windows, else 0 (`core.raster`)."""
        return window_pixels(path, bands=self.channels is not None)

    def size(self, path: Path) -> tuple[int, int]:
        """Return height and width from the header; errors as `read_header`."""
        if self.channels is None or path.suffix.lower() not in TIFFS:
            return image_size(path)
        with self.opened(path) as picture:
            return picture.shape[:2]

    @contextmanager
    def opened(self, path: Path) -> Iterator[RasterPicture]:
        """Open a TIFF to be read by windows, with the values that a call returns.

        Raises:
            DataError: as `core.raster.opened_raster`.
        """
        plain = self.channels is None and self.value_range is None
        with opened_raster(path, self.channels, None if plain else self.to_bytes) as picture:
            yield picture

    def warn_if_dark(self, path: Path) -> None:
        """Log a warning for a 16-bit picture whose values use less than a quarter of 16 bits."""
        if self != PictureReader() or path.suffix.lower() == ".npy":
            return
        highest = highest_value(path)
        if highest is not None and highest < DEEP:
            logging.getLogger("seenet").warning(
                "%s: 16 bits without a value above %d, so it is nearly black; scale its values to "
                "8 bits, or train with a value_range in seenet.yaml, which the model keeps",
                path,
                highest,
            )

    def as_json(self) -> dict[str, Any]:
        """Return what a model keeps as JSON values: all that is not the default, but `upright`."""
        values = {"channels": self.channels, "value_range": self.value_range}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def of_model(cls, path: Path) -> Self:
        """Return the reader that a .safetensors model keeps; the default where it has none."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                return cls.from_json(json.loads((file.metadata() or {})["seenet"]).get("reader"))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()  # not a model: met where it is loaded

    @classmethod
    def from_json(cls, values: dict[str, Any] | None) -> Self:
        """Return the reader of `as_json`; None stands for the default.

        Raises:
            ValueError, TypeError: the values are no reader's.
        """
        found = values or {}
        channels, limits = found.get("channels"), found.get("value_range")
        if limits is not None:
            several = isinstance(limits[0], list | tuple)
            pairs = limits if several else [limits]
            ranges = tuple((float(low), float(high)) for low, high in pairs)
            limits = ranges if several else ranges[0]
        return cls(tuple(map(int, channels)) if channels else None, limits)

    @property
    def _one_range(self) -> Range | None:
        return cast("Range | None", self.value_range)

    def _chosen(self, values: np.ndarray, name: str) -> np.ndarray:
        """Return the channels of H x W x B values as uint8."""
        channels: Sequence[int] = self.channels or ()
        if max(channels) > values.shape[2]:
            raise lacks_bands(name, values.shape[2], channels)
        return self.to_bytes(values[..., [number - 1 for number in channels]], name)

    def to_bytes(self, values: np.ndarray, name: str) -> np.ndarray:
        """Scale H x W x C values to uint8.

        Raises:
            DataError: they are not unsigned 8 or 16 bits, and have no range.
        """
        if self.value_range is None:
            if values.dtype == np.uint8:
                return np.ascontiguousarray(values)
            if values.dtype == np.uint16:
                return eight_bits(values, 16)
            raise no_range(name, str(values.dtype), finite_limits(values))
        limits_of: Any = self.value_range
        ranges = limits_of if isinstance(limits_of[0], tuple) else [limits_of] * values.shape[2]
        # Band by band, since each in float64 takes eight times its bytes.
        bands = [
            scaled(values[..., band].astype(np.float64), limits)
            for band, limits in enumerate(ranges)
        ]
        return np.stack(bands, axis=2)


PLAIN = PictureReader()
"""Reader of pictures of red, green and blue."""
