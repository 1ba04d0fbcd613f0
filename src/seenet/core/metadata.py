"""What picture files say beside their pixels. Pillow's readers stumble over what is damaged of it, so that they see none.

How a picture is turned is read here, from whatever can be read.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from seenet.core import avif, tiff
from seenet.core.edited import Piece, edited

ORIENTATION = 0x0112
MOST_BYTES = 2**20
"""Looked at of an EXIF block or a text."""

PNG = b"\x89PNG\r\n\x1a\n"
# Of a PNG's optional chunks those that say how pixels are to be read: animations; transparency is looked at.
_KEPT = {b"acTL", b"fcTL", b"fdAT"}
_TRANSPARENCY = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}
"""Its bytes, by colour type."""
_COLOURS = ((0xE0, b"JFIF\0", 14), (0xEE, b"Adobe", 12))
"""Segments of a JPEG by which libjpeg tells colours apart: marker, first bytes, and the length under which it passes them by."""
_PROFILE, _PACKET = b"Raw profile type exif", b"XML:com.adobe.xmp"

_NUMBERS = {3: "H", 4: "L", 8: "h", 9: "l"}
"""Types of an EXIF tag that a number may have."""


@dataclass(frozen=True)
class Bare:
    """A picture file without metadata: `orientation` 1 to 8, or None where Pillow is to be asked (of formats that are read whole).

    `size`: width and height where they are known without Pillow. `several`: it has further pages.
    """

    stream: BinaryIO
    orientation: int | None = None
    size: tuple[int, int] | None = None
    several: bool = False


def bare(stream: BinaryIO) -> Bare:
    """What of a picture file Pillow is to see."""
    if not stream.seekable():
        stream = io.BytesIO(stream.read())
    head = stream.read(12)
    if head.startswith(PNG):
        return _png(stream)
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg(stream)
    if head[:4] in tiff.MAGICS:
        return _tiff(stream)
    if head[4:8] == b"ftyp":
        size, pieces = avif.header(stream)
        return Bare(_shown(stream, pieces), None, size)
    return Bare(stream)


def orientation_of(exifs: Iterable[bytes], xmp: bytes) -> int:
    """How a picture is turned, 1 to 8: by the first EXIF block that can be read, else by XMP; 1 where neither says."""
    found = next((tag for exif in exifs if (tag := _exif_tag(exif)) is not None), 0)
    if found == 0 and (match := re.search(rb'tiff:Orientation(?:="|>)([0-9])', xmp)):
        found = int(match[1])
    return found if found in range(1, 9) else 1


def exif_block(orientation: int) -> bytes:
    """An EXIF block that says nothing but how the picture is turned."""
    return struct.pack("<6s2sHLHHHLHHL", b"Exif\0\0", b"II", 42, 8, 1, ORIENTATION, 3, 1, orientation, 0, 0)


def raw_profile(text: bytes) -> bytes:
    """What `Raw profile type exif` holds as digits behind three lines. Anything else among them is passed by, as ImageMagick does."""
    digits = re.sub(rb"[^0-9a-fA-F]", b"", b"".join(text[: 3 * MOST_BYTES].split(b"\n")[3:]))
    return bytes.fromhex(digits[: len(digits) // 2 * 2].decode())


def png_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each whole chunk of a PNG, where its data begin, and how long they are."""
    end, place = stream.seek(0, 2), len(PNG)
    while place + 12 <= end:
        stream.seek(place)
        length, kind = struct.unpack(">L4s", stream.read(8))
        if place + 12 + length > end:
            return
        yield kind, place + 8, length
        if kind == b"IEND":
            return
        place += 12 + length


def _exif_tag(data: bytes) -> int | None:
    """The orientation as the block has it, -1 for what cannot be one; 0: it has none; None: it cannot be read so far.

    Other tags may be damaged.
    """
    data = re.sub(rb"^(Exif\0\0){1,2}", b"", data)
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


def _shown(stream: BinaryIO, pieces: list[Piece]) -> BinaryIO:
    return stream if len(pieces) == 1 else edited(stream, pieces)


def _jpeg(stream: BinaryIO) -> Bare:
    """Without segments that decoders do not need. Behind the first place where no segment stands, as it is."""
    pieces: list[Piece] = []
    exif = xmp = b""
    start, place, end = 0, 2, stream.seek(0, 2)
    while place + 4 <= end:
        stream.seek(place)
        mark, marker, length = struct.unpack(">BBH", stream.read(4))
        following = place + 2 + length
        # Restarts, the picture's begin and end, and its first scan (0xDA) have another form.
        if mark != 0xFF or not 0xC0 <= marker <= 0xFE or 0xD0 <= marker <= 0xDA or length < 2 or following > end:
            break
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            data = stream.read(length - 2)
            if marker == 0xE1 and data.startswith(b"Exif\0\0") and len(exif) < MOST_BYTES:
                exif += data[6:] if exif else data
            elif marker == 0xE1 and data.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
                xmp = data
            if not any(marker == kind and data.startswith(name) and len(data) >= least for kind, name, least in _COLOURS):
                pieces.append((start, place))
                start = following
        place = following
    pieces.append((start, end))
    return Bare(_shown(stream, pieces), orientation_of([exif], xmp) if exif or xmp else None)


def _png(stream: BinaryIO) -> Bare:
    """Without chunks that decoders do not need. Pillow's order: the block itself, then the one in a text, then XMP; the last of each."""
    pieces: list[Piece] = []
    found: dict[bytes, tuple[bytes, int, int]] = {}
    start, colours = 0, -1
    for kind, place, length in png_chunks(stream):
        if kind == b"IHDR" and length == 13:
            colours = stream.read(13)[9]
        if not kind[0] & 0x20 or kind in _KEPT or (kind == b"tRNS" and _transparent(stream, length, colours)):
            continue
        pieces.append((start, place - 8))
        start = place + length + 4
        name = b"exif" if kind == b"eXIf" else b""
        if kind in {b"tEXt", b"zTXt", b"iTXt"}:
            name = stream.read(min(length, 40)).partition(b"\0")[0]
        if name in {_PROFILE, _PACKET} or (name == b"exif" and kind in {b"eXIf", b"tEXt"}):
            found[name] = kind, place, length
    pieces.append((start, stream.seek(0, 2)))
    exifs = [_text(stream, found[b"exif"])] if b"exif" in found else []
    if _PROFILE in found:
        exifs.append(raw_profile(_text(stream, found[_PROFILE])))
    return Bare(_shown(stream, pieces), orientation_of(exifs, _text(stream, found[_PACKET]) if _PACKET in found else b""))


def _transparent(stream: BinaryIO, length: int, colours: int) -> bool:
    """Whether the chunk that comes next is one of transparency that can be read."""
    if length not in _TRANSPARENCY.get(colours, ()):
        return False
    data = stream.read(length)
    return stream.read(4) == struct.pack(">L", zlib.crc32(b"tRNS" + data))


def _text(stream: BinaryIO, chunk: tuple[bytes, int, int]) -> bytes:
    """What the chunk says, as far as it can be read; at most `MOST_BYTES`, unpacked."""
    kind, place, length = chunk
    stream.seek(place)
    data = stream.read(min(length, MOST_BYTES))
    if kind == b"eXIf":
        return data
    packed, data = kind == b"zTXt", data.partition(b"\0")[2]
    if packed:
        data = data[1:]
    elif kind == b"iTXt":
        packed = data[:1] == b"\1"
        data = data[2:].partition(b"\0")[2].partition(b"\0")[2]
    if not packed:
        return data
    try:
        return zlib.decompressobj().decompress(data, MOST_BYTES)
    except zlib.error:
        return b""


def _tiff(stream: BinaryIO) -> Bare:
    """The one page; its tag says how it is turned, else XMP. ValueError where no page is found."""
    directory, several = tiff.picture(stream)
    if directory is None:
        raise ValueError("its directory is damaged")
    orientation = directory.number(tiff.ORIENTATION)
    if orientation is None:
        orientation = orientation_of((), directory.value(stream, tiff.XMP))
    pieces = directory.bare(stream)
    return Bare(_shown(stream, pieces), orientation if orientation in range(1, 9) else 1, None, several)
