"""Damaged metadata never costs a picture, never changes its pixels, and how it is turned is read where that can be read."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from seenet.core.errors import DataError
from seenet.core.images import from_pil, png_header, read_encoded, read_header, read_ids, read_image
from seenet.core.metadata import exif_block
from tests.core.blocks import BLOCKS, CENTIMETRES, COLOURS, ENDLESS, FORMS, LETTERS, ORIENTATION, exif, read, saved, segment, turn, turned
from tests.core.tiffs import ASCII, LONG, SRATIONAL, Page, long, short, tiff_of
from tests.data.planting import chunk


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("form", FORMS)
def test_exif_blocks(tmp_path: Path, form: str, name: str) -> None:
    block, orientation = BLOCKS[name]
    if form == "AVIF":
        orientation = 1  # other boxes would say so
    if form == "TIFF" and name == "big-endian":
        pytest.skip("a TIFF has one order of bytes")
    plain = read(tmp_path / "plain", saved(form, None))
    pixels = read(tmp_path / "picture", saved(form, block))
    assert np.array_equal(pixels, turned(plain, orientation))
    assert read_header(tmp_path / "picture").notes == ((f"EXIF orientation {orientation}",) if orientation > 1 else ())


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
@pytest.mark.parametrize("name", BLOCKS)
def test_an_avif_is_turned_by_its_own_boxes(tmp_path: Path, name: str) -> None:
    """Pillow writes the orientation there, and the rest as EXIF."""
    stream = io.BytesIO()
    Image.fromarray(COLOURS).save(stream, "AVIF", exif=exif(turn(6), (270, ASCII, 40, b"x" * 40)))
    content, data = stream.getvalue(), BLOCKS[name][0].removeprefix(b"Exif\0\0")[:60]
    place = content.index(b"II*\0")
    whole = read(tmp_path / "whole", content)
    assert whole.shape == (13, 9, 3)
    assert np.array_equal(read(tmp_path / "damaged", content[:place] + data + content[place + len(data) :]), whole)


@pytest.mark.parametrize("xmp", [b'<x tiff:Orientation="6"/>', b'\xff\xfe<x <<tiff:Orientation="6', b"<tiff:Orientation>6<"])
@pytest.mark.parametrize("form", [form for form in FORMS if form != "AVIF"])
def test_xmp_says_it_where_exif_does_not(tmp_path: Path, form: str, xmp: bytes) -> None:
    plain = read(tmp_path / "plain", saved(form, None))
    for block, orientation in ((None, 6), (exif(ENDLESS), 6), (b"Exif\0\0no TIFF", 6), (exif(turn(3)), 3), (exif(turn(1)), 1)):
        assert np.array_equal(read(tmp_path / "picture", saved(form, block, xmp)), turned(plain, orientation))
    assert np.array_equal(read(tmp_path / "picture", saved(form, None, b'<x tiff:Orientation="sideways"/>')), plain)


PROFILE = exif(turn(6))
DIGITS = f"\nexif\n{len(PROFILE):8}\n".encode() + PROFILE.hex().encode()


@pytest.mark.parametrize(
    ("text", "orientation"),
    [
        (DIGITS, 6),
        (DIGITS + b"\n", 6),
        (DIGITS + b"\0", 6),
        (DIGITS + b"zz", 6),
        (DIGITS[:60] + b"zz" + DIGITS[60:], 6),
        (DIGITS + b"4", 6),
        (DIGITS[:-1], 6),
        (DIGITS[:40], 1),
        (DIGITS[:17] + b"zz" + DIGITS[19:], 1),
        (b"", 1),
        (b"\n\n\n", 1),
        ("\nexif\n 9\n\N{GREEK SMALL LETTER ALPHA}".encode(), 1),
    ],
)
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
@pytest.mark.parametrize("behind", [False, True])
def test_profiles_in_texts(tmp_path: Path, text: bytes, orientation: int, kind: bytes, behind: bool) -> None:
    """ImageMagick writes EXIF as digits."""
    packed = {b"tEXt": text, b"zTXt": b"\0" + zlib.compress(text), b"iTXt": b"\1\0\0\0" + zlib.compress(text)}[kind]
    content = saved("PNG", None)
    place = len(content) - 12 if behind else 33
    found = chunk(kind, b"Raw profile type exif\0" + packed)
    assert np.array_equal(read(tmp_path / "picture", content[:place] + found + content[place:]), turned(COLOURS, orientation))


def wrong(data: bytes) -> bytes:
    """A chunk with a wrong checksum."""
    return data[:-1] + bytes([data[-1] ^ 1])


CHUNKS = {
    "a short resolution": chunk(b"pHYs", b"\0\0\1"),
    "short colours": chunk(b"cHRM", b"\0\0\1"),
    "a short intent": chunk(b"sRGB", b""),
    "a profile of no compression": chunk(b"iCCP", b"name\0\7data"),
    "a profile that is cut": chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(999))[:9]),
    "a text of no compression": chunk(b"zTXt", b"name\0\7data"),
    "a text of strange letters": chunk(b"iTXt", b"\xff\xfe\0\0\0\0\0\xff"),
    "a text that was changed": wrong(chunk(b"tEXt", b"Comment\0hello")),
    "a block that was changed": wrong(chunk(b"eXIf", exif(turn(1))[6:])),
    "a short transparency": chunk(b"tRNS", b"\0"),
    "a transparency that was changed": wrong(chunk(b"tRNS", bytes(6))),
    "an unknown one that was changed": wrong(chunk(b"abCd", b"data")),
}


@pytest.mark.parametrize("name", CHUNKS)
@pytest.mark.parametrize("behind", [False, True])
def test_chunks_that_no_pixel_needs(tmp_path: Path, name: str, behind: bool) -> None:
    content = saved("PNG", None)
    place = len(content) - 12 if behind else 33
    assert np.array_equal(read(tmp_path / "picture", content[:place] + CHUNKS[name] + content[place:]), COLOURS)
    assert read_header(tmp_path / "picture").notes == ()


def test_checksums_of_a_png_that_is_handed_in_are_all_looked_at() -> None:
    content = saved("PNG", None)
    assert png_header(content, "a.png") == ("RGB", (9, 13))
    for name in ("a text that was changed", "an unknown one that was changed"):
        for place in (33, len(content) - 12):
            with pytest.raises(DataError, match="checksum"):
                png_header(content[:place] + CHUNKS[name] + content[place:], "a.png")
    with pytest.raises(DataError, match="no end"):
        png_header(content[:-12], "a.png")


MULTIPLE = b"MPF\0II*\0\x08\0\0\0\x01\0\x01\xb0\x04\0\x01\0\0\0\x05\0\0\0\0\0\0\0"
"""Five pictures, of which nothing more is said."""

SEGMENTS = {
    "a short JFIF": segment(0xE0, b"JFIF\0"),
    "pictures without places": segment(0xE2, MULTIPLE),
    "pictures in a block that is cut": segment(0xE2, MULTIPLE[:9]),
    "a profile in parts that are not there": segment(0xE2, b"ICC_PROFILE\0\x07\x09abc"),
    "a short profile": segment(0xE2, b"ICC_PROFILE\0"),
    "resources that end too early": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0"),
    "a short Adobe": segment(0xEE, b"Adobe\0"),
    "a comment": segment(0xFE, b"\xff\xd9"),
    "letters for a number": segment(0xE1, exif(LETTERS, CENTIMETRES)),
    "packets": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xff") * 2,
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_segments_that_no_pixel_needs(tmp_path: Path, name: str) -> None:
    content = saved("JPEG", None)
    plain = read(tmp_path / "plain", content)
    for place in (2, content.index(b"\xff\xdb"), content.index(b"\xff\xda")):
        assert np.array_equal(read(tmp_path / "picture", content[:place] + SEGMENTS[name] + content[place:]), plain)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_colours_of_a_jpeg_are_what_pillow_reads(tmp_path: Path, mode: str, subsampling: int) -> None:
    """Some segments say how they are stored; these are kept."""
    image = Image.fromarray(COLOURS).convert(mode)
    image.save(tmp_path / "a.jpg", subsampling=subsampling, exif=exif(turn(1)), comment=b"hello", progressive=subsampling == 0)
    with Image.open(tmp_path / "a.jpg") as expected:
        assert np.array_equal(read_image(tmp_path / "a.jpg"), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize(
    "tags",
    [
        {700: (ASCII, 30, b"<tiff:Orientation>6</tiff:Orie")},
        {700: short(7)},
        {700: (1, 2**30, struct.pack("<L", 2**32 - 1))},
        {270: (ASCII, 99, struct.pack("<L", 2**32 - 1))},
        {282: (ASCII, 2, b"7\0"), 296: short(3)},
        {282: (SRATIONAL, 1, struct.pack("<ll", -1, 0)), 296: short(3)},
        {34665: long(2**32 - 1), 34853: short(1, 2), 40965: long(3)},
        {34665: (SRATIONAL, 1, struct.pack("<ll", -1, 0))},
        {34675: (7, 2**31, struct.pack("<L", 2**31))},
        {274: (SRATIONAL, 1, struct.pack("<ll", -1, 0))},
        {33550: (12, 3, struct.pack("<L", 2**31))},
        {42112: (ASCII, 2**31, b"\0\0\0\0")},
        {60000: (99, 5, b"abcd")},
    ],
)
@pytest.mark.parametrize("big", [False, True])
def test_tags_that_no_pixel_needs(tmp_path: Path, tags: dict[int, tuple[int, int, bytes]], big: bool) -> None:
    orientation = 6 if tags.get(700, (0,))[0] == ASCII else 1
    if big:
        tags = {tag: (kind, count, data.ljust(8, b"\0") if count > 9 else data) for tag, (kind, count, data) in tags.items() if kind < 99}
    pixels = read(tmp_path / "picture", tiff_of(Page(COLOURS, tags), big=big))
    assert np.array_equal(pixels, turned(COLOURS, orientation))
    grey = tiff_of(Page(COLOURS[..., 0], tags), big=big)
    (tmp_path / "mask").write_bytes(grey)
    assert np.array_equal(read_ids(tmp_path / "mask"), turned(COLOURS, orientation)[..., 0])


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "jpeg"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_codecs_of_tiffs_find_their_tags(tmp_path: Path, compression: str, orientation: int) -> None:
    """From a file libtiff reads by itself; from memory it gets what is left of the tags."""
    tags = Image.Exif()
    tags[ORIENTATION], tags[270] = orientation, "a description"
    Image.fromarray(COLOURS).save(tmp_path / "a.tif", compression=compression, exif=tags, resolution=300)
    with Image.open(tmp_path / "a.tif") as expected:
        whole = np.asarray(expected.convert("RGB"))
    assert np.array_equal(read_image(tmp_path / "a.tif"), whole)
    assert np.array_equal(read_encoded((tmp_path / "a.tif").read_bytes(), "a"), whole)


def test_the_block_that_says_no_more_than_a_turn() -> None:
    for orientation in range(1, 9):
        found = Image.Exif()
        found.load(exif_block(orientation))
        assert dict(found) == {ORIENTATION: orientation}


def test_images_of_pillows_own() -> None:
    """Asked twice, the same."""
    content = saved("PNG", None)
    profile = content[:33] + chunk(b"tEXt", b"Raw profile type exif\0" + DIGITS + b"\0") + content[33:]
    for data, orientation in (
        (saved("PNG", b"Exif\0\0no TIFF"), 1),
        (saved("PNG", exif(turn(6), ENDLESS)), 6),
        (saved("TIFF", exif(turn(6), (34665, LONG, 1, struct.pack("<L", 2**31)))), 6),
        (tiff_of(Page(COLOURS, {700: (ASCII, 5, b"hello"), 34665: (SRATIONAL, 1, struct.pack("<ll", -1, 0))})), 1),
        (profile, 6),
    ):
        image = Image.open(io.BytesIO(data))
        for _ in range(2):
            assert np.array_equal(from_pil(image), turned(COLOURS, orientation))
