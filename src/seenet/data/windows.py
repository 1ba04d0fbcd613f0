"""Large TIFFs of a split, read by parts: squares in training, rows of tiles in `eval`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

from seenet.core.images import image_size
from seenet.core.picture_reader import PictureReader
from seenet.core.raster import RasterPicture
from seenet.data.split import FileSplit, Split, size_mismatch


def is_large(split: Split, index: int, pixels: int) -> TypeGuard[FileSplit]:
    """Return whether an image is a TIFF of over `pixels` pixels that is read by windows."""
    if not isinstance(split, FileSplit) or not isinstance(split.picture, PictureReader):
        return False
    path = split.images[index]
    if not split.picture.by_windows(path):
        return False
    height, width = split.picture.size(path)
    return height * width > pixels


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
