"""Pictures to segment: from Python as arrays, in a command as files, folders and patterns."""

import glob
import os
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeGuard

import numpy as np
from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.core.files import files_below
from seenet.core.image_files import BROKEN
from seenet.core.images import IMAGE_SUFFIXES
from seenet.core.picture_reader import PLAIN, PictureReader

Picture = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray
Pictures = list[Picture] | tuple[Picture, ...] | Generator[Picture, None, None]

EXPECTED = (
    "a path, the bytes of a picture file, a file opened with 'rb', a PIL image, "
    "a uint8 array (height x width, or x channels), or a list, tuple or generator of these"
)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def several(pictures: object) -> TypeGuard[Pictures]:
    """Return whether this is a collection of pictures; an open file is one picture."""
    return isinstance(pictures, list | tuple | Iterator) and not hasattr(pictures, "read")


def as_array(picture: Any, name: str, reader: PictureReader) -> tuple[np.ndarray, str]:
    """Return a picture as an array, and the name that its files will have.

    Args:
        picture: A path, bytes, an open file, a PIL image, or an array.
        name: Name of a picture that is not in a file.
        reader: How files and PIL images become arrays.

    Returns:
        H x W x C uint8 (an array is returned as it is, except H x W as RGB or one channel), and
        the stem of the picture's file, or `name`.

    Raises:
        DataError: The picture is unreadable.
        UsageError: The argument is not a picture.
    """
    if isinstance(picture, str | os.PathLike):
        path = os.fsdecode(picture)
        if _URL.match(path):
            raise UsageError(f"{path}: URLs are not fetched; download it, and give the file")
        reader.warn_if_dark(Path(path))
        return reader(Path(path)), Path(path).stem
    if isinstance(picture, bytes | bytearray | memoryview):
        return reader.decode(bytes(picture), name), name
    if hasattr(picture, "read"):
        return _from_file(picture, name, reader)
    if isinstance(picture, Image.Image):
        return _from_image(picture, name, reader), name
    if isinstance(picture, np.ndarray):
        grey = picture.ndim == 2 and picture.dtype == np.uint8
        copies = 1 if reader.count == 1 else 3
        return np.repeat(picture[:, :, None], copies, axis=2) if grey else picture, name
    raise UsageError(f"picture: found {type(picture).__name__}, expected {EXPECTED}")


def _from_file(file: Any, name: str, reader: PictureReader) -> tuple[np.ndarray, str]:
    try:
        if hasattr(file, "seekable") and file.seekable():
            file.seek(0)
        content = file.read()
    except (ValueError, OSError, TypeError) as error:
        raise UsageError(
            f"picture: a file that cannot be read ({error}); open it with 'rb', and close it later"
        ) from None
    if not isinstance(content, bytes):
        raise UsageError(
            f"picture: a file of {type(content).__name__}, expected bytes; open it with 'rb'"
        )
    path = getattr(file, "name", None)
    if not isinstance(path, str):
        return reader.decode(content, name), name
    return reader.decode(content, path), Path(path).stem


def _from_image(image: Image.Image, name: str, reader: PictureReader) -> np.ndarray:
    try:
        return reader.from_image(image, name)
    except BROKEN as error:
        # Pillow decodes when pixels are read: the file may be damaged, or closed by then.
        closed = isinstance(error, AssertionError | AttributeError) or "closed" in str(error)
        if closed and getattr(getattr(image, "fp", None), "closed", True):
            raise UsageError(
                f"{name}: a PIL image that is closed; load() it before its file is closed, "
                "or give the path"
            ) from None
        raise DataError(
            f"{name}: the PIL image cannot be decoded ({error})",
            fix="copy its file again",
            kind="damaged",
        ) from None


@dataclass(frozen=True)
class Input:
    """A picture file and the name of its outputs.

    The name is subfolders (with /) and stem, or the whole file name where stems clash. With
    `windows` the picture is read, and its mask written, by windows (`raster`).
    """

    path: Path
    name: str
    windows: bool = False


def find_inputs(
    patterns: Iterable[str | Path], out: Path, reader: PictureReader = PLAIN
) -> list[Input]:
    """Find pictures as `find_pictures`, and name their outputs.

    Raises:
        UsageError: Two files would have the same outputs.
    """
    pictures = find_pictures(patterns, out)
    return [
        Input(path, name, reader.window_pixels(path) > 0)
        for (path, _), name in zip(pictures, output_names(pictures), strict=True)
    ]


def find_pictures(patterns: Iterable[str | Path], out: Path) -> list[tuple[Path, str]]:
    """Find the pictures of files, folders and globs, each once, in a stable order.

    Folders are searched recursively, by suffix, without hidden files. Files in `out` are never
    inputs.

    Returns:
        Path and name of each: a folder's pictures keep their subfolders, a glob's those from its
        first wildcard on.

    Raises:
        DataError: There is no picture.
    """
    pictures: dict[str, tuple[Path, str]] = {}
    for pattern in patterns:
        for path, relative in _expand(Path(pattern)):
            pictures.setdefault(os.path.abspath(path), (path, relative))
    # Links are resolved, since the folder may have several names.
    inside = os.path.realpath(out) + os.sep
    kept = [
        entry
        for path, entry in pictures.items()
        if not (os.path.realpath(Path(path).parent) + os.sep).startswith(inside)
    ]
    if not kept:
        raise DataError(
            f"found no picture outside {out}, where the outputs go; give other inputs or "
            "another --out"
        )
    return kept


def _expand(pattern: Path) -> Iterator[tuple[Path, str]]:
    """Yield path and name of the pictures of a file, folder or glob."""
    root, what = pattern, "in this folder"
    if pattern.is_dir():
        # Arrays only where there are no pictures: beside these they are something else.
        pictures = files_below(pattern, IMAGE_SUFFIXES) or files_below(pattern, {".npy"})
    elif pattern.is_file():
        # A file may have any suffix, and wildcards in its name.
        yield pattern, pattern.name
        return
    elif pattern.exists() or not glob.has_magic(str(pattern)):
        raise DataError(
            f"{pattern}: no such file or folder; expected pictures, folders or a pattern such as "
            "'photos/*.jpg'"
        )
    else:
        root = Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts[:-1]))
        # pathlib's own glob takes no absolute pattern.
        matches = sorted(map(Path, glob.glob(str(pattern), recursive=True)))  # noqa: PTH207
        pictures = [
            path for path in matches if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES
        ]
        what = f"among the {len(matches)} files of this pattern"
    if not pictures:
        raise DataError(
            f"{pattern}: found no picture {what}; expected files such as .jpg, .png or .tif"
        )
    yield from ((path, path.relative_to(root).as_posix()) for path in pictures)


def output_names(pictures: list[tuple[Path, str]]) -> list[str]:
    """Name the outputs of pictures, given as (path, relative name).

    The name is without the suffix; where that name is not unique, it is the whole relative name.

    Raises:
        UsageError: Two pictures have the same relative name.
    """
    whole = [relative for _, relative in pictures]
    for relative, count in Counter(whole).items():
        if count > 1:
            one, other = [str(path) for path, name in pictures if name == relative][:2]
            raise UsageError(
                f"{one} and {other} would both be written as {relative}; give a folder that holds "
                "both, or run twice with two --out"
            )
    names = [str(PurePosixPath(relative).with_suffix("")) for relative in whole]
    while True:
        # Repeated, since a whole name may equal another file's stem: a.jpg beside a.jpg.png.
        counts = Counter(names)
        longer = [
            full if counts[name] > 1 else name for name, full in zip(names, whole, strict=True)
        ]
        if longer == names:
            return names
        names = longer
