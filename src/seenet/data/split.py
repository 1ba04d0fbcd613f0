"""A split: numbered samples of images with their masks, whatever the data set."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from seenet.core.errors import DataError
from seenet.core.files import digest, read_text
from seenet.core.images import read_header
from seenet.core.labels import LabelSet
from seenet.core.picture_reader import PLAIN, PictureReader
from seenet.data.masks import MaskReader


class Split(Protocol):
    """Numbered samples: images with their masks.

    `read` returns an H x W x C uint8 image (C is 3, but for `reader_of` other channels) and its
    H x W mask of class ids, with `labels.ignore` where it is not scored. `image` returns the image
    alone.
    """

    @property
    def name(self) -> str:
        """Name of data set and split in results, as `camvid/val`."""

    @property
    def labels(self) -> LabelSet: ...

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """Return the name of a sample: a relative path without suffix."""

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]: ...

    def image(self, index: int) -> np.ndarray: ...

    def paths(self, index: int) -> tuple[Path | None, Path | None]:
        """Return the files of image and mask; None for what is drawn."""

    def stamp(self, index: int) -> str:
        """Return a hash of everything that the result of `read` depends on.

        This includes path, size and time of each file, and how it is decoded: the name of the
        function, and of the user's own function its file.
        """


@dataclass(frozen=True)
class FileSplit:
    """Pairs of files.

    Attributes:
        decode: reads a mask file as class ids.
        picture: reads an image file.
        normalization: mean and standard deviation of each channel, 0 to 1, that the network
            subtracts and divides by; None: those of its backbone's weights.
    """

    name: str
    labels: LabelSet
    keys: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    decode: Callable[[Path], np.ndarray]
    picture: Callable[[Path], np.ndarray] = PLAIN
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        return self.keys[index]

    def image(self, index: int) -> np.ndarray:
        return self.picture(self.images[index])

    def mask(self, index: int) -> np.ndarray:
        """Read H x W class ids; raise DataError for a file that cannot be decoded as declared."""
        return self.decode(self.masks[index])

    def decoded(self, index: int) -> tuple[np.ndarray, int]:
        """Read a mask as `mask`, and how many of its pixels went to the nearest class."""
        if isinstance(self.decode, MaskReader):
            return self.decode.decoded(self.masks[index])
        return self.mask(index), 0

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self.image(index), self.mask(index)
        if image.shape[:2] != mask.shape:
            raise size_mismatch(self.images[index], image.shape[:2], self.masks[index], mask.shape)
        return image, mask

    def paths(self, index: int) -> tuple[Path, Path]:
        return self.images[index], self.masks[index]

    def stamp(self, index: int) -> str:
        how = [_how(self.decode), _how(self.picture)]
        files = [*_own_file(self.decode), *self.paths(index)]
        return digest(*label_parts(self.labels), *how, *map(file_stamp, files))

    def missing(self, index: int) -> list[tuple[Path, DataError]]:
        """Return the missing file of a pair with its error, else an empty list.

        If both are missing, it is the image.
        """
        image, mask = self.paths(index)
        if not image.is_file():
            path, what = image, f"no such picture, though {self.name} lists it"
            fix = "copy it there or take it off the list"
        elif not mask.is_file():
            path, what = mask, f"no mask for {image.name}"
            fix = f"every picture of {self.name} needs one: copy it there"
            if self.labels.name == "folder":
                fix += ", or set `unlabelled: skip`"
        else:
            return []
        return [(path, DataError(f"{path}: {what}", fix=fix, kind="missing"))]


def reader_of(split: Split) -> PictureReader:
    """Return how the pictures of a split are read, which its models keep."""
    picture = split.picture if isinstance(split, FileSplit) else PLAIN
    return picture if isinstance(picture, PictureReader) else PLAIN


def normalization_of(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and deviation of the channels that the data names; None: the backbone's."""
    return split.normalization if isinstance(split, FileSplit) else None


def label_parts(labels: LabelSet) -> list[str]:
    """Return the parts of a label set that decide whether the ids of a mask are valid."""
    return [labels.name, str(labels.num_classes), str(labels.ignore)]


def file_stamp(path: Path) -> str:
    """Return path, size and time of a file; "none" stands for a missing file."""
    try:
        stat = path.stat()
    except OSError:
        return f"{path}|none"
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def _how(function: Callable[[Path], np.ndarray]) -> str:
    """Describe a function with its settings; an object describes itself."""
    if isinstance(function, partial):
        return f"{function.func.__name__} {function.keywords!r}"
    return getattr(function, "__name__", repr(function))


def _own_file(decode: Callable[[Path], np.ndarray]) -> list[Path]:
    """List the file of a function that is not of this package."""
    function = decode.func if isinstance(decode, partial) else decode
    module = str(getattr(function, "__module__", ""))
    file = getattr(sys.modules.get(module), "__file__", None)
    return [] if file is None or module.startswith("seenet.") else [Path(file)]


def size_mismatch(
    image: Path, image_shape: tuple[int, ...], mask: Path, mask_shape: tuple[int, ...]
) -> DataError:
    """Return the error for an image and a mask of different sizes (height, width)."""
    fix = "resize the mask with nearest neighbour"
    swapped = image_shape[:2] == mask_shape[1::-1]
    if swapped and image.is_file() and read_header(image).sideways:
        fix = "the mask fits the picture as it is stored: set `exif: ignore` in seenet.yaml"
    return DataError(
        f"{mask}: {mask_shape[0]} x {mask_shape[1]} pixels, "
        f"but its picture {image} has {image_shape[0]} x {image_shape[1]}",
        fix=fix,
        kind="size",
        pixels=mask_shape[0] * mask_shape[1],
    )


def file_split(
    name: str,
    labels: LabelSet,
    pairs: list[tuple[str, Path, Path]],
    decode: Callable[[Path], np.ndarray],
    *,
    empty: str,
    picture: Callable[[Path], np.ndarray] = PLAIN,
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> FileSplit:
    """Build a split from (key, image, mask); the files may be missing.

    Raises:
        DataError: there are no pairs; `empty` says how to fix it.
    """
    if not pairs:
        raise DataError(f"{name}: no pictures found", fix=empty, kind="empty-split")
    keys, images, masks = zip(*pairs, strict=True)
    return FileSplit(name, labels, keys, images, masks, decode, picture, normalization)


def read_list(path: Path, hint: str) -> list[str]:
    """Read the lines of a list file, stripped, without blank lines.

    Raises:
        DataError: the file is missing; `hint` says what is expected.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such list", fix=hint, kind="missing")
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def need_folder(path: Path, hint: str) -> None:
    """Raise DataError if a folder is missing; `hint` says what is expected."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; {hint}")
