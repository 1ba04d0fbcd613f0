"""The directories of a TIFF: which of its pages is the picture, and what a reader needs of it."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import BinaryIO

from seenet.core.edited import Piece

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"MM*\0", b"II\0*")
"""What Pillow takes for a TIFF; the fifth and the sixth are wrong, and known."""

MOST_DIRECTORIES = 1000
"""Looked at. A picture has one for each smaller copy and for each copy's mask."""
MOST_BYTES = 2**20
"""Read of a value."""

SUBFILE, WIDTH, LENGTH, BITS, ORIENTATION, SAMPLE_FORMAT, XMP = 254, 256, 257, 258, 274, 339, 700
REDUCED, MASK = 1, 4
"""Bits of `SUBFILE`: a smaller copy of another page, another page's mask."""

# What the decoders ask for, their codecs' own among them. Anything else may be damaged without harm.
_NEEDED = frozenset(
    {SUBFILE, 255, WIDTH, LENGTH, BITS, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338}
    | {SAMPLE_FORMAT, 347, *range(512, 522), 529, 530, 531, 532, 48129, 50674}
)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}
_FORMS = {2: "int", 3: "float"}


@dataclass(frozen=True)
class Directory:
    """One of a TIFF's: `content` is what stands at `place`, from the number of its entries to the place of the next directory."""

    head: bytes
    place: int
    content: bytes

    @property
    def order(self) -> str:
        """Of bytes, as `struct` has it."""
        return "<" if self.head[:2] == b"II" else ">"

    @property
    def big(self) -> bool:
        """Whether it is a BigTIFF's."""
        return self.head[2] == 43

    @property
    def first(self) -> bool:
        """Whether it is the one that the file names."""
        return bool(struct.unpack_from(self.order + ("Q" if self.big else "L"), self.head, 8 if self.big else 4)[0] == self.place)

    @property
    def entries(self) -> Iterator[tuple[int, int, int, int]]:
        """Tag, type, number of values, and where in `content` the values stand, or their place in the file."""
        start, size, form, value = (8, 20, "HHQ", 12) if self.big else (2, 12, "HHL", 8)
        for place in range(start, len(self.content) - size + 1, size):
            yield (*struct.unpack_from(self.order + form, self.content, place), place + value)

    @cached_property
    def tags(self) -> dict[int, tuple[int, int, int]]:
        """The entries by tag, the first of each."""
        found: dict[int, tuple[int, int, int]] = {}
        for tag, *entry in self.entries:
            found.setdefault(tag, (entry[0], entry[1], entry[2]))
        return found

    @property
    def page(self) -> bool:
        """Whether it is a picture of its own."""
        return {WIDTH, LENGTH} <= self.tags.keys() and not (self.number(SUBFILE) or 0) & (REDUCED | MASK)

    def number(self, tag: int) -> int | None:
        """The one value of a tag, where it stands in the entry; None where there is none."""
        kind, count, where = self.tags.get(tag, (0, 0, 0))
        if kind not in _NUMBERS or not 0 < count * _SIZES[kind] <= (8 if self.big else 4):
            return None
        return int(struct.unpack_from(self.order + _NUMBERS[kind], self.content, where)[0])

    def value(self, stream: BinaryIO, tag: int) -> bytes:
        """The bytes of a tag, at most `MOST_BYTES`, as far as they are there; nothing where it is not."""
        kind, count, where = self.tags.get(tag, (0, 0, 0))
        size = count * _SIZES.get(kind, 0)
        if size <= (8 if self.big else 4):
            return self.content[where : where + size]
        (place,) = struct.unpack_from(self.order + ("Q" if self.big else "L"), self.content, where)
        try:
            stream.seek(place)
        except (OSError, OverflowError):  # further than any file reaches
            return b""
        return stream.read(min(size, MOST_BYTES))

    def numbers(self, stream: BinaryIO, tag: int) -> tuple[int, ...]:
        """The values of a tag, as far as they are there."""
        data, kind = self.value(stream, tag), self.tags.get(tag, (0, 0, 0))[0]
        if kind not in _NUMBERS:
            return ()
        return struct.unpack_from(f"{self.order}{len(data) // _SIZES[kind]}{_NUMBERS[kind]}", data)

    def values(self, stream: BinaryIO) -> str:
        """Type of its values where they are others than of 8 or 16 bits from 0 up, such as `float64`; else nothing."""
        form = _FORMS.get(max(self.numbers(stream, SAMPLE_FORMAT), default=1), "uint")
        bits = max(self.numbers(stream, BITS), default=1)
        return "" if form == "uint" and bits <= 16 else f"{form}{bits}"

    def bare(self, stream: BinaryIO) -> list[Piece]:
        """The file with this as its only directory, and without what no decoder asks for; everything else in its place."""
        size, form = (16, "Q") if self.big else (8, "L")
        content = bytearray(self.content)
        for tag, _, _, where in self.entries:
            if tag not in _NEEDED:
                kind = where - (10 if self.big else 6)
                content[kind : kind + 2] = b"\0\0"  # no type, so readers pass it by
        content[-size // 2 :] = bytes(size // 2)
        head = self.head[: size // 2] + struct.pack(self.order + form, self.place)
        if head == self.head[:size] and content == self.content:
            return [(0, stream.seek(0, 2))]
        return [head, (size, self.place), bytes(content), (self.place + len(content), stream.seek(0, 2))]


def directories(stream: BinaryIO) -> Iterator[Directory]:
    """Those of a TIFF in their order, until one is damaged or comes again."""
    stream.seek(0)
    head = stream.read(16)
    if head[:4] not in MAGICS or len(head) < 8:
        return
    big = head[2] == 43
    order, form = "<" if head[:2] == b"II" else ">", "Q" if big else "L"
    counts, size, width = ("Q", 20, 8) if big else ("H", 12, 4)
    seen: set[int] = set()
    try:
        (place,) = struct.unpack_from(order + form, head, 8 if big else 4)
        while place >= 2 * width and place not in seen and len(seen) < MOST_DIRECTORIES:
            seen.add(place)
            stream.seek(place)
            start = stream.read(struct.calcsize("=" + counts))
            (count,) = struct.unpack(order + counts, start)
            if count >= 2**16:
                return
            content = start + stream.read(count * size + width)
            end = len(start) + count * size
            if len(content) < end:
                return
            # A file may end where the place of the next one should stand.
            content = content.ljust(end + width, b"\0")
            yield Directory(head, place, content)
            (place,) = struct.unpack_from(order + form, content, end)
    except (struct.error, OSError, OverflowError):  # it ends too early, or a place is further than any file reaches
        return


def picture(stream: BinaryIO) -> tuple[Directory | None, bool]:
    """The first page of a TIFF, and whether there is another one. Copies of smaller size and masks are no pages, unless nothing else is
    there. None where its directories are damaged.
    """
    pages = list(islice((directory for directory in directories(stream) if directory.page), 2))
    return (pages[0], len(pages) > 1) if pages else (next(directories(stream), None), False)
