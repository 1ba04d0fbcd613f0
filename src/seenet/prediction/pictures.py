"""Pictures to predict: from Python as arrays, in a command as files, folders and patterns."""

import glob
import os
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeGuard

import numpy as np
from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.core.files import files_below
from seenet.core.images import IMAGE_SUFFIXES, from_pil, read_encoded, read_image
from seenet.core.opening import BROKEN
from seenet.prediction.raster import by_windows

Picture = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray
Pictures = list[Picture] | tuple[Picture, ...] | Generator[Picture, None, None]

TAKEN = (
    "a path, the bytes of a picture file, a file opened with 'rb', a PIL image, a uint8 array (height x width, or x 3), "
    "or a list, tuple or generator of these"
)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def several(pictures: object) -> TypeGuard[Pictures]:
    """Report whether this is a collection of pictures. An open file, which can be iterated too, is
    one picture.
    """
    return isinstance(pictures, list | tuple | Iterator) and not hasattr(pictures, "read")


def as_array(picture: Any, name: str) -> tuple[np.ndarray, str]:
    """Return a picture as an array, and the name that its files will have: its file's stem, or
    `name`.

    An array is returned as it is, grey as RGB.

    Raises:
        DataError: unreadable.
        UsageError: no picture.
    """
    if isinstance(picture, str | os.PathLike):
        return _from_path(os.fsdecode(picture))
    if isinstance(picture, bytes | bytearray | memoryview):
        return read_encoded(bytes(picture), name), name
    if hasattr(picture, "read"):
        return _from_file(picture, name)
    if isinstance(picture, Image.Image):
        return _from_image(picture, name), name
    if isinstance(picture, np.ndarray):
        grey = picture.ndim == 2 and picture.dtype == np.uint8
        return np.repeat(picture[:, :, None], 3, axis=2) if grey else picture, name
    raise UsageError(f"picture: found {type(picture).__name__}, expected {TAKEN}")


def _from_path(path: str) -> tuple[np.ndarray, str]:
    if _URL.match(path):
        raise UsageError(f"{path}: an address, which is not fetched; download it, and give the file")
    return read_image(Path(path)), Path(path).stem


def _from_file(file: Any, name: str) -> tuple[np.ndarray, str]:
    try:
        if hasattr(file, "seekable") and file.seekable():
            file.seek(0)
        content = file.read()
    except (ValueError, OSError, TypeError) as error:
        raise UsageError(f"picture: a file that cannot be read ({error}); open it with 'rb', and close it later") from None
    if not isinstance(content, bytes):
        raise UsageError(f"picture: a file that gives {type(content).__name__}, expected bytes; open it with 'rb'")
    path = getattr(file, "name", None)
    name = Path(path).stem if isinstance(path, str) else name
    return read_encoded(content, path if isinstance(path, str) else name), name


def _from_image(image: Image.Image, name: str) -> np.ndarray:
    try:
        return from_pil(image, name)
    except BROKEN as error:
        # Pillow decodes when pixels are asked for, so a file that was opened may be bad, or closed by then.
        closed = isinstance(error, AssertionError | AttributeError) or "closed" in str(error)
        if closed and getattr(getattr(image, "fp", None), "closed", True):
            raise UsageError(f"{name}: a PIL image that is closed; load() it before its file is closed, or give the path") from None
        raise DataError(f"{name}: the PIL image cannot be decoded ({error})", fix="copy its file again", kind="damaged") from None


@dataclass(frozen=True)
class Input:
    """A picture and the name of its outputs.

    The name is subfolders (with /) and stem, or the whole file name where stems clash. With
    `windows` the picture is read, and its mask written, by windows (`raster`).
    """

    path: Path
    name: str
    windows: bool = False


def find_inputs(patterns: Iterable[str | Path], out: Path) -> list[Input]:
    """Find pictures as `find_pictures`, and name their outputs. UsageError: two files that would
    get the same outputs.
    """
    found = find_pictures(patterns, out)
    return [Input(path, name, by_windows(path)) for (path, _), name in zip(found, output_names(found), strict=True)]


def find_pictures(patterns: Iterable[str | Path], out: Path) -> list[tuple[Path, str]]:
    """Find the pictures of files, folders and globs, each once, in a stable order.

    Folders are searched recursively, by suffix, without hidden files. What lies in `out` is never
    an input.

    Returns:
        Path and name of each: a folder's pictures keep their subfolders, a glob's those from its
        first wildcard on.

    Raises:
        DataError: nothing there.
    """
    found: dict[str, tuple[Path, str]] = {}
    for pattern in patterns:
        for path, relative in _expand(Path(pattern)):
            found.setdefault(os.path.abspath(path), (path, relative))
    # By any name that the folder has.
    inside = os.path.realpath(out) + os.sep
    kept = [entry for where, entry in found.items() if not (os.path.realpath(Path(where).parent) + os.sep).startswith(inside)]
    if not kept:
        raise DataError(f"found no picture outside {out}, where the outputs go; give other inputs or another --out")
    return kept


def _expand(pattern: Path) -> Iterator[tuple[Path, str]]:
    if pattern.is_dir():
        pictures = files_below(pattern, IMAGE_SUFFIXES)
        if not pictures:
            raise DataError(f"{pattern}: found no picture in this folder; expected files such as .jpg, .png or .tif, here or below")
        yield from ((path, path.relative_to(pattern).as_posix()) for path in pictures)
    elif pattern.exists() or not glob.has_magic(str(pattern)):
        if not pattern.is_file():
            raise DataError(f"{pattern}: no such file or folder; expected pictures, folders or a pattern such as 'photos/*.jpg'")
        yield pattern, pattern.name
    else:
        root = _fixed_part(pattern)
        # pathlib's own glob takes no absolute pattern.
        matches = sorted(Path(match) for match in glob.glob(str(pattern), recursive=True))  # noqa: PTH207
        pictures = [path for path in matches if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES]
        if not pictures:
            raise DataError(
                f"{pattern}: found {len(matches)} files for this pattern, none of them a picture; expected files such as .jpg, .png or .tif"
            )
        yield from ((path, path.relative_to(root).as_posix()) for path in pictures)


def _fixed_part(pattern: Path) -> Path:
    """Return the folders before the first wildcard."""
    fixed = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def output_names(pictures: list[tuple[Path, str]]) -> list[str]:
    """Name the outputs of (path, relative name): by the stem, or by the whole file name where stems
    clash.
    """
    whole = [relative for _, relative in pictures]
    for relative, count in Counter(whole).items():
        if count > 1:
            one, other = [str(path) for path, name in pictures if name == relative][:2]
            raise UsageError(
                f"{one} and {other} would both be written as {relative}; give a folder that holds both, or run twice with two --out"
            )
    names = [str(PurePosixPath(relative).with_suffix("")) for relative in whole]
    while True:
        # Again, since a whole name may meet another file's stem: a.jpg beside a.jpg.png.
        counts = Counter(names)
        longer = [full if counts[name] > 1 else name for name, full in zip(names, whole, strict=True)]
        if longer == names:
            return names
        names = longer
