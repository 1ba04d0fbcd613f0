"""Turn whatever a predictor may be given from Python into arrays. Imports no torch."""

import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.core.image_files import BROKEN
from seenet.core.images import from_pil, read_encoded, read_image

Picture = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray
Pictures = list[Picture] | tuple[Picture, ...] | Generator[Picture, None, None]

TAKEN = (
    "a path, the bytes of a picture file, a file opened with 'rb', a PIL image, a uint8 array (height x width, or x 3), "
    "or a list, tuple or generator of these"
)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def several(pictures: object) -> TypeGuard[Pictures]:
    """Whether these are pictures, and not one. A file, which gives lines one by one, is one."""
    return isinstance(pictures, list | tuple | Iterator) and not hasattr(pictures, "read")


def as_array(picture: Any, name: str) -> tuple[np.ndarray, str]:
    """A picture as an array and the name that its files will have: its file's stem, or `name`.

    An array is returned as it is, grey as RGB. DataError: unreadable; UsageError: what is no picture.
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
