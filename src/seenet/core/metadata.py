"""How a picture file says that it is turned, and a PNG without the metadata over which Pillow would stumble.

Pillow itself reads past most of what is damaged beside the pixels of other formats; the rest is refused in one line.
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
MAX_TEXT = 2**20
"""Bytes of a PNG's text or EXIF block that is looked at for the orientation."""

_NUMBERS = {3: "H", 4: "L", 8: "h", 9: "l"}
"""Types of an EXIF tag that a number may have."""
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD = len(_PNG) + 25
_PNG_KEPT = {b"acTL", b"fcTL", b"fdAT", b"tRNS"}
"""Of a PNG's optional chunks those that say how pixels are to be read: animations and transparency."""
_PNG_TEXTS = {b"Raw profile type exif", b"XML:com.adobe.xmp"}
"""Names of the texts in which an orientation may stand."""


def stored_orientation(image: Image.Image) -> int:
    """Read how an image says that it is turned, 1 to 8, from what can be read of its metadata; 1 where nothing says it.

    By its own tag (TIFF) or the first EXIF block that can be read, else by XMP.
    """
    info = image.info
    if isinstance(image, TiffImageFile):
        found = image.tag_v2.get(ORIENTATION, 0)
    else:
        profile = info.get("Raw profile type exif")
        blocks = (info.get("exif"), _raw_profile(profile) if isinstance(profile, str) else None)
        read = [exif_orientation(block) for block in blocks if isinstance(block, bytes)]
        found = next((tag for tag in read if tag is not None), 0)
    # An AVIF is turned by boxes of its own, which Pillow gives as EXIF, and by nothing else.
    xmp = b"" if image.format == "AVIF" else info.get("xmp") or info.get("XML:com.adobe.xmp")
    xmp = xmp.encode(errors="replace") if isinstance(xmp, str) else xmp
    if found == 0 and isinstance(xmp, bytes) and (match := re.search(rb'tiff:Orientation(?:="|>)([0-9])', xmp)):
        found = int(match[1])
    return int(found) if found in range(1, 9) else 1


def exif_orientation(block: bytes) -> int | None:
    """Read the orientation from an EXIF block; other tags may be damaged, over which Pillow would lose it.

    0: it holds none. -1: what it holds cannot be one. None: it cannot be read so far.
    """
    data = re.sub(rb"^(Exif\0\0){1,2}", b"", block)
    order = {b"II*\0": "<", b"MM\0*": ">", b"MM*\0": ">", b"II\0*": "<"}.get(data[:4])
    if order is None:
        return None
    try:
        (place,) = struct.unpack_from(f"{order}4xL", data)
        (count,) = struct.unpack_from(f"{order}H", data, place)
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHL", data, entry)
            if tag == ORIENTATION and number:
                fits = kind in _NUMBERS and number * struct.calcsize("=" + _NUMBERS[kind]) <= 4
                return int(struct.unpack_from(order + _NUMBERS[kind], data, entry + 8)[0]) or -1 if fits else -1
    except struct.error:
        return None
    return 0


def essential(stream: BinaryIO) -> BinaryIO:
    """Leave out a PNG's chunks that decoders do not need; any other file stays as it is.

    Pillow refuses a PNG for a comment that is damaged or long. What may say how it is turned is moved right behind the
    header: it may stand behind the pixels, which Pillow would decode to find it.
    """
    if not stream.seekable():
        stream = io.BytesIO(stream.read())
    head = stream.read(len(_PNG))
    stream.seek(0)
    if head != _PNG:
        return stream
    parts: list[tuple[int, int]] = []
    moved: list[tuple[int, int]] = []
    start = _PNG_HEAD
    for kind, place, length in png_chunks(stream):
        # The case of its first letter says whether a decoder may pass it by.
        if place - 8 < _PNG_HEAD or not kind[0] & 0x20 or kind in _PNG_KEPT:
            continue
        parts.append((start, place - 8))
        start = place + length + 4
        if length <= MAX_TEXT and kind in {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}:
            data = stream.read(length)
            sound = zlib.crc32(data, zlib.crc32(kind)) == int.from_bytes(stream.read(4))
            if sound and (kind == b"eXIf" or data.partition(b"\0")[0] in _PNG_TEXTS):
                moved.append((place - 8, start))
    end = stream.seek(0, 2)
    stream.seek(0)
    if not parts:
        return stream
    return io.BufferedReader(_Excerpt(stream, [(0, _PNG_HEAD), *moved, *parts, (start, end)]), 2**16)


def png_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each whole chunk of a PNG, where its data begin, and how long they are."""
    end, place = stream.seek(0, 2), len(_PNG)
    while place + 12 <= end:
        stream.seek(place)
        length, kind = struct.unpack(">L4s", stream.read(8))
        if place + 12 + length > end:
            return
        yield kind, place + 8, length
        if kind == b"IEND":
            return
        place += 12 + length


class _Excerpt(io.RawIOBase):
    """Parts of a file one after another, each from its first byte up to another, read where they stand."""

    def __init__(self, stream: BinaryIO, parts: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self._stream, self._place, self._parts = stream, 0, parts
        self._ends = list(accumulate(end - start for start, end in parts))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self._ends[-1])[whence]
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # RawIOBase takes any buffer
        number = bisect_right(self._ends, self._place)
        if number == len(self._ends):
            return 0
        left = self._ends[number] - self._place
        self._stream.seek(self._parts[number][1] - left)
        data = self._stream.read(min(len(buffer), left))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _raw_profile(text: str) -> bytes:
    """Decode the hex digits behind the three lines of `Raw profile type exif`; anything else among them is passed by, as
    ImageMagick does.
    """
    digits = re.sub(r"[^0-9a-fA-F]", "", "".join(text.split("\n")[3:]))
    return bytes.fromhex(digits[: len(digits) // 2 * 2])
