"""Large TIFFs of a split, of which only a part is read: a square for training, rows for `eval`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch

from seenet.core.images import image_size
from seenet.core.picture_reader import PictureReader
from seenet.core.raster import RasterPicture
from seenet.data.masks import MaskReader
from seenet.data.split import FileSplit, Split, size_mismatch

MANY_SQUARES = 16
"""Squares that a picture must hold for its part to be read alone; a smaller one is read whole."""


def is_large(split: Split, index: int, pixels: int) -> TypeGuard[FileSplit]:
    """Return whether an image is a TIFF of over `pixels` pixels that is read by windows."""
    if not isinstance(split, FileSplit) or not isinstance(split.picture, PictureReader):
        return False
    path = split.images[index]
    if not split.picture.by_windows(path):
        return False
    height, width = split.picture.size(path)
    return height * width > pixels


def read_square(split: Split, index: int, side: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Read a random square of a large image, and of its mask; every place is equally likely.

    Random numbers come from torch's global generator. Of a mask that is no TIFF the whole is
    decoded.

    Args:
        split: Any split.
        index: Number of the sample.
        side: Side of the square in pixels.

    Returns:
        The parts, as `Split.read`; None if the image is not large, so that it is read whole.

    Raises:
        DataError: A file cannot be read, or the mask has another size.
    """
    if not is_large(split, index, MANY_SQUARES * side**2):
        return None
    with opened_large(split, index) as picture:
        height, width = picture.shape[:2]
        top, left = (
            int(torch.randint(max(0, length - side) + 1, ()).item()) for length in (height, width)
        )
        rows, columns = slice(top, top + side), slice(left, left + side)
        image: np.ndarray = picture[rows, columns]
    decode, path = split.decode, split.masks[index]
    if isinstance(decode, MaskReader):
        return image, decode.part(path, rows, columns)
    return image, decode(path)[rows, columns]


@contextmanager
def opened_large(split: FileSplit, index: int) -> Iterator[RasterPicture]:
    """Open a large image to be read by windows.

    Raises:
        DataError: It cannot be read, or the mask has another size.
    """
    image, mask = split.paths(index)
    reader = split.picture
    assert isinstance(reader, PictureReader)  # by `is_large`
    with reader.opened(image) as picture:
        _check_size(image, picture.shape[:2], mask)
        yield picture


def _check_size(image: Path, shape: tuple[int, ...], mask: Path) -> None:
    """Raise DataError for a mask of another size."""
    if (found := image_size(mask)) != tuple(shape):
        raise size_mismatch(image, shape, mask, found)
