"""Read the orientation of an image, and strip a PNG of metadata that Pillow would fail on.

Pillow itself skips most damaged metadata of other formats.
"""

import io
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import BinaryIO

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

ORIENTATION = 0x0112
"""EXIF tag of the orientation, 1 to 8."""
MAX_TEXT = 2**20
"""Largest text or EXIF chunk of a PNG, in bytes, that is searched for the orientation."""

_INTEGERS = {3: "H", 4: "L", 8: "h", 9: "l"}
"""`struct` codes of the EXIF types of an integer."""
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD = len(_PNG) + 25
"""Length of a PNG's signature and its first chunk, IHDR."""
_PNG_KEPT = {b"acTL", b"fcTL", b"fdAT", b"tRNS"}
"""Ancillary PNG chunks that decoding needs: animation and transparency."""
_PNG_TEXTS = {b"Raw profile type exif", b"XML:com.adobe.xmp"}
"""Keywords of PNG texts that may hold an orientation."""


def stored_orientation(image: Image.Image) -> int:
    """Return the orientation, 1 to 8, from the readable part of an image's metadata; default 1.

    A TIFF's own tag or the first readable EXIF block comes first, then XMP.
    """
    info = image.info
    if isinstance(image, TiffImageFile):
        found = image.tag_v2.get(ORIENTATION, 0)
    else:
        profile = info.get("Raw profile type exif")
        blocks = (info.get("exif"), _raw_profile(profile) if isinstance(profile, str) else None)
        read = [exif_orientation(block) for block in blocks if isinstance(block, bytes)]
        found = next((tag for tag in read if tag is not None), 0)
    # Boxes of its own rotate an AVIF, which Pillow reports as EXIF; XMP is ignored there.
    xmp = b"" if image.format == "AVIF" else info.get("xmp") or info.get("XML:com.adobe.xmp")
    xmp = xmp.encode(errors="replace") if isinstance(xmp, str) else xmp
    if found == 0 and isinstance(xmp, bytes):
        match = re.search(rb'tiff:Orientation(?:="|>)([0-9])', xmp)
        found = int(match[1]) if match else 0
    return int(found) if found in range(1, 9) else 1


def exif_orientation(block: bytes) -> int | None:
    """Return the orientation of an EXIF block, whose other tags may be damaged.

    Returns:
        The tag's value; 0 if there is no tag, -1 if its value is invalid, None if the block is
        damaged before the tag.
    """
    data = re.sub(rb"^(Exif\0\0){1,2}", b"", block)
    order = {b"II*\0": "<", b"MM\0*": ">", b"MM*\0": ">", b"II\0*": "<"}.get(data[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}4xL", data)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHL", data, entry)
            if tag == ORIENTATION and number:
                code = _INTEGERS.get(kind)
                if code is None or number * struct.calcsize(f"={code}") > 4:
                    return -1
                return int(struct.unpack_from(order + code, data, entry + 8)[0]) or -1
    except struct.error:
        return None
    return 0


def filter_png(stream: BinaryIO) -> BinaryIO:
    """Return a PNG without the chunks that decoding does not need; return other files unchanged.

    Pillow rejects a PNG for a damaged or long comment. Chunks that may hold the orientation move
    to the front: Pillow would decode the pixels to find one after them.
    """
    if not stream.seekable():
        stream = io.BytesIO(stream.read())
    signature = stream.read(len(_PNG))
    stream.seek(0)
    if signature != _PNG:
        return stream
    kept: list[tuple[int, int]] = []
    moved: list[tuple[int, int]] = []
    start = _PNG_HEAD
    for kind, place, length in png_chunks(stream):
        # A lower-case first letter marks an ancillary chunk.
        if place - 8 < _PNG_HEAD or not kind[0] & 0x20 or kind in _PNG_KEPT:
            continue
        kept.append((start, place - 8))
        start = place + length + 4
        if length <= MAX_TEXT and kind in {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}:
            data = stream.read(length)
            intact = zlib.crc32(data, zlib.crc32(kind)) == int.from_bytes(stream.read(4))
            if intact and (kind == b"eXIf" or data.partition(b"\0")[0] in _PNG_TEXTS):
                moved.append((place - 8, start))
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if not kept:
        return stream
    ranges = [(0, _PNG_HEAD), *moved, *kept, (start, end)]
    return io.BufferedReader(FileRanges(stream, ranges), 2**16)


def png_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start of the data, and length of the data of each complete chunk of a PNG."""
    end, place = stream.seek(0, io.SEEK_END), len(_PNG)
    while place + 12 <= end:
        stream.seek(place)
        length, kind = struct.unpack(">L4s", stream.read(8))
        if place + 12 + length > end:
            return
        yield kind, place + 8, length
        if kind == b"IEND":
            return
        place += 12 + length


class FileRanges(io.RawIOBase):
    """Byte ranges (start, end) of a file as one stream, read from the file on demand."""

    def __init__(self, stream: BinaryIO, ranges: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self._stream, self._ranges, self._position = stream, ranges, 0
        self._ends = list(accumulate(end - start for start, end in ranges))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._ends[-1])[whence]
        return self._position

    # RawIOBase declares a wider type of buffer.
    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        number = bisect_right(self._ends, self._position)
        if number == len(self._ends):
            return 0
        left = self._ends[number] - self._position
        self._stream.seek(self._ranges[number][1] - left)
        data = self._stream.read(min(len(buffer), left))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _raw_profile(text: str) -> bytes:
    """Decode the hex digits after the three header lines of a `Raw profile type exif` text.

    Other characters among them are skipped, as ImageMagick does.
    """
    digits = re.sub(r"[^0-9a-fA-F]", "", "".join(text.split("\n")[3:]))
    return bytes.fromhex(digits[: len(digits) // 2 * 2])
