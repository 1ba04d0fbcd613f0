"""Read PNG files in memory as strictly as other readers do: for archives of predictions."""

import io
import zlib
from pathlib import Path

import numpy as np

from seenet.core.errors import DataError
from seenet.core.image_files import safe_image_open
from seenet.core.metadata import png_chunks


def png_header(content: bytes, name: str) -> tuple[str, tuple[int, int]]:
    """Read the header of a PNG in memory, and verify the checksums of all chunks.

    Args:
        content: the file.
        name: used in errors.

    Returns:
        Pillow's mode, and height and width as stored.

    Raises:
        DataError: not a PNG, or damaged: other readers may reject what Pillow tolerates.
    """
    with safe_image_open(Path(name), content) as image:
        if image.format != "PNG":
            raise DataError(f"{name}: a picture of kind {image.format}, expected PNG")
        kind = b""
        for kind, start, length in png_chunks(io.BytesIO(content)):
            end = start + length
            checksum = int.from_bytes(content[end : end + 4])
            if zlib.crc32(content[start:end], zlib.crc32(kind)) != checksum:
                raise OSError(f"wrong checksum of {kind!r}")
        if kind != b"IEND":
            raise OSError("no end")
        return image.mode, (image.height, image.width)


def png_ids(content: bytes, name: str) -> np.ndarray:
    """Decode the H x W values of a PNG in memory, as stored; call `png_header` first.

    Raises:
        DataError: as `read_image`.
    """
    with safe_image_open(Path(name), content) as image:
        return np.array(image)
