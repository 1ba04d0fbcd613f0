"""A split: pictures with their masks, whatever data set they come from."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from seenet.core.errors import DataError
from seenet.core.files import digest, read_text
from seenet.core.images import read_image
from seenet.core.labels import LabelSet


class Split(Protocol):
    """Numbered samples: pictures with their masks.

    `read` gives an H x W x 3 uint8 picture and its H x W mask of class ids, with `labels.ignore`
    where it is not scored.
    """

    @property
    def name(self) -> str:
        """Name data set and split, as results do: `camvid/val`."""

    @property
    def labels(self) -> LabelSet: ...

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """Name a sample: a relative path without suffix."""

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]: ...

    def image(self, index: int) -> np.ndarray: ...

    def paths(self, index: int) -> tuple[Path | None, Path | None]:
        """Return the files of picture and mask; None where it is drawn."""

    def stamp(self, index: int) -> str:
        """Hash whatever decides what `read` gives (SHA-256).

        Files count by path, size and time, and so does how they are decoded: by the function's
        name, of the user's own by its file too, which may change.
        """


@dataclass(frozen=True)
class FileSplit:
    """Pairs of files; `decode` reads a mask file as class ids."""

    name: str
    labels: LabelSet
    keys: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    decode: Callable[[Path], np.ndarray]

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        return self.keys[index]

    def image(self, index: int) -> np.ndarray:
        return read_image(self.images[index])

    def mask(self, index: int) -> np.ndarray:
        """Read H x W class ids; raise DataError for a file that cannot be decoded as declared."""
        return self.decode(self.masks[index])

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self.image(index), self.mask(index)
        if image.shape[:2] != mask.shape:
            raise size_mismatch(self.images[index], image.shape[:2], self.masks[index], mask.shape)
        return image, mask

    def paths(self, index: int) -> tuple[Path, Path]:
        return self.images[index], self.masks[index]

    def stamp(self, index: int) -> str:
        decode = self.decode
        how = (
            [decode.func.__name__, repr(decode.keywords)]
            if isinstance(decode, partial)
            else [getattr(decode, "__name__", "")]
        )
        files = [*_own_file(decode), *self.paths(index)]
        return digest(*label_parts(self.labels), *how, *map(file_stamp, files))

    def missing(self, index: int) -> list[tuple[Path, DataError]]:
        """Return the file that is not there, and what to say of it.

        Where neither picture nor mask is there it is the picture.
        """
        image, mask = self.paths(index)
        if not image.is_file():
            what = f"{image}: no such picture, though {self.name} lists it"
            return [
                (
                    image,
                    DataError(what, fix="copy it there or take it off the list", kind="missing"),
                )
            ]
        if not mask.is_file():
            what = f"{mask}: no mask for {image.name}"
            return [
                (
                    mask,
                    DataError(
                        what,
                        fix=f"every picture of {self.name} needs one: copy it there",
                        kind="missing",
                    ),
                )
            ]
        return []


def label_parts(labels: LabelSet) -> list[str]:
    """List what of a label set decides whether a mask is good."""
    return [labels.name, str(labels.num_classes), str(labels.ignore)]


def file_stamp(path: Path) -> str:
    """Describe a file by path, size and time; "none" where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return f"{path}|none"
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def _own_file(decode: Callable[[Path], np.ndarray]) -> list[Path]:
    """List the file of a function that is not of this package."""
    function = decode.func if isinstance(decode, partial) else decode
    module = str(getattr(function, "__module__", ""))
    file = getattr(sys.modules.get(module), "__file__", None)
    return [] if file is None or module.startswith("seenet.") else [Path(file)]


def size_mismatch(
    image: Path, image_shape: tuple[int, ...], mask: Path, mask_shape: tuple[int, ...]
) -> DataError:
    """Make the error that names both files and both sizes, as height x width."""
    return DataError(
        f"{mask}: {mask_shape[0]} x {mask_shape[1]} pixels, but its picture {image} has {image_shape[0]} x {image_shape[1]}",
        fix="resize the mask with nearest neighbour, or fix its EXIF rotation",
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
) -> FileSplit:
    """Make a split of (key, picture, mask), whose files need not be there yet.

    Raises:
        DataError: there are no pairs; `empty` says what to do.
    """
    if not pairs:
        raise DataError(f"{name}: no pictures found", fix=empty, kind="empty-split")
    keys, images, masks = zip(*pairs, strict=True)
    return FileSplit(name, labels, keys, images, masks, decode)


def read_list(path: Path, hint: str) -> list[str]:
    """Read the lines of a list file, without blanks.

    Raises:
        DataError: it is not there; `hint` says what is expected.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such list", fix=hint, kind="missing")
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def need_folder(path: Path, hint: str) -> None:
    """Raise DataError where a folder of the data is not there; `hint` says what is expected."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; {hint}")
