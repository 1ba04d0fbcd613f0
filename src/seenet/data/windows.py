"""Large TIFFs of a split, read by parts: squares in training, rows of tiles in `eval`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

from seenet.core.images import image_size
from seenet.core.picture_reader import PictureReader
from seenet.core.raster import RasterPicture
from seenet.data.split import FileSplit, Split, reader_of, size_mismatch


def is_large(split: Split, index: int, pixels: int) -> TypeGuard[FileSplit]:
    """Return whether an image is a TIFF of over `pixels` pixels that is read by windows."""
    return (
        isinstance(split, FileSplit)
        and isinstance(split.picture, PictureReader)
        and split.picture.window_pixels(split.images[index]) > pixels
    )


@contextmanager
def opened_large(split: FileSplit, index: int) -> Iterator[RasterPicture]:
    """Open a large image to be read by windows.

    Raises:
        DataError: It cannot be read, or the mask has another size.
    """
    image, mask = split.paths(index)
    with reader_of(split).opened(image) as picture:
        shape, found = picture.shape[:2], image_size(mask)
        if found != shape:
            raise size_mismatch(image, shape, mask, found)
        yield picture
