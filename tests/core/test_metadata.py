"""How a picture is turned is read where that can be read, and nothing damaged beside its pixels ever changes them."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from seenet.core.errors import DataError
from seenet.core.images import from_pil, png_header, read_encoded, read_header, read_ids, read_image
from seenet.core.metadata import _Excerpt, exif_orientation
from tests.core.blocks import BLOCKS, COLOURS, ENDLESS, FORMS, ORIENTATION, exif, read, saved, segment, tags_of, turn, turned
from tests.core.tiffs import ASCII, LONG, SRATIONAL, Page, long, short, tiff_of
from tests.data.planting import chunk

REFUSED = {("JPEG", "letters for a number"), ("TIFF", "letters for a number"), ("TIFF", "beyond the end")}
"""Pillow cannot read on there, and nobody has met it."""


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("form", [form for form in FORMS if form != "AVIF"])
def test_exif_blocks(tmp_path: Path, form: str, name: str) -> None:
    block, orientation = BLOCKS[name]
    if form == "TIFF" and name == "big-endian":
        pytest.skip("a TIFF has one order of bytes")
    if (form, name) in REFUSED:
        with pytest.raises(DataError) as caught:
            read(tmp_path / "picture", saved(form, block))
        assert caught.value.kind == "damaged"
        return
    plain = read(tmp_path / "plain", saved(form, None))
    pixels = read(tmp_path / "picture", saved(form, block))
    assert np.array_equal(pixels, turned(plain, orientation))
    assert read_header(tmp_path / "picture").notes == ((f"EXIF orientation {orientation}",) if orientation > 1 else ())


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
@pytest.mark.parametrize("orientation", [1, 6])
def test_an_avif_is_turned_by_its_own_boxes(tmp_path: Path, orientation: int) -> None:
    """Pillow writes the orientation there, and the rest as EXIF; XMP has no say."""
    plain = read(tmp_path / "plain", saved("AVIF", None))
    stream = io.BytesIO()
    block = exif(turn(orientation), (270, ASCII, 40, b"x" * 40))
    Image.fromarray(COLOURS).save(stream, "AVIF", exif=block, xmp=b'<x tiff:Orientation="3"/>')
    assert np.array_equal(read(tmp_path / "turned", stream.getvalue()), turned(plain, orientation))


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
    "a text that is too long": chunk(b"zTXt", b"name\0\0" + zlib.compress(bytes(2**21))),
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
    "pictures without places": segment(0xE2, MULTIPLE),
    "pictures in a block that is cut": segment(0xE2, MULTIPLE[:9]),
    "a profile in parts that are not there": segment(0xE2, b"ICC_PROFILE\0\x07\x09abc"),
    "resources that end too early": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0"),
    "a comment": segment(0xFE, b"\xff\xd9"),
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


def test_images_of_pillows_own() -> None:
    """Asked twice, the same."""
    content = saved("PNG", None)
    profile = content[:33] + chunk(b"tEXt", b"Raw profile type exif\0" + DIGITS + b"\0") + content[33:]
    for data, orientation in (
        (saved("PNG", b"Exif\0\0no TIFF"), 1),
        (saved("PNG", exif(turn(6), ENDLESS)), 6),
        (saved("TIFF", exif(turn(6), (34665, LONG, 1, struct.pack("<L", 2**31)))), 6),
        (profile, 6),
    ):
        image = Image.open(io.BytesIO(data))
        for _ in range(2):
            assert np.array_equal(from_pil(image), turned(COLOURS, orientation))


def read_or_refused(folder: Path, content: bytes) -> np.ndarray | None:
    with suppress(DataError):
        return read(folder / "picture", content)
    return None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(FORMS),
    block=st.one_of(st.binary(max_size=90), st.sampled_from([block for block, _ in BLOCKS.values()])),
    xmp=st.one_of(st.none(), st.binary(min_size=1, max_size=60), st.sampled_from([b'tiff:Orientation="5"', b"tiff:Orientation>77"])),
    places=st.lists(st.tuples(st.integers(0, 89), st.integers(0, 255)), max_size=6),
)
def test_pixels_never_depend_on_damaged_metadata(
    tmp_path: Path, form: str, block: bytes, xmp: bytes | None, places: list[tuple[int, int]]
) -> None:
    """At most it is turned otherwise, and then its header says so."""
    damaged = bytearray(block)
    for place, value in places:
        if place < len(damaged):
            damaged[place] = value
    plain = read(tmp_path / "plain", saved(form, None))
    needed = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347, 254, 48129}
    if form == "TIFF" and tags_of(bytes(damaged)).keys() & needed:
        return
    pixels = read_or_refused(tmp_path, saved(form, b"Exif\0\0" + bytes(damaged).removeprefix(b"Exif\0\0"), xmp))
    if pixels is None:
        # Numbers of another type, or over zero, stop Pillow; a PNG shows it none but those that say how it is turned.
        assert form not in {"PNG", "WEBP"}
        return
    assert any(np.array_equal(pixels, turned(plain, orientation)) for orientation in range(1, 9))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([b"pHYs", b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf", b"gAMA", b"cHRM", b"bKGD"]),
    data=st.binary(max_size=60),
)
def test_pixels_never_depend_on_what_is_beside_them_in_a_png(tmp_path: Path, kind: bytes, data: bytes) -> None:
    content = saved("PNG", None)
    for place in (33, len(content) - 12):
        pixels = read(tmp_path / "picture", content[:place] + chunk(kind, data) + content[place:])
        assert any(np.array_equal(pixels, turned(COLOURS, orientation)) for orientation in range(1, 9))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    marker=st.sampled_from([0xE0, 0xE1, 0xE2, 0xED, 0xEF, 0xFE]),
    name=st.sampled_from([b"", b"JFIF\0", b"JFXX\0", b"MPF\0", b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"Exif\0\0II*\0\x08\0\0\0"]),
    data=st.binary(max_size=60),
)
def test_pixels_never_depend_on_what_is_beside_them_in_a_jpeg(tmp_path: Path, marker: int, name: bytes, data: bytes) -> None:
    content = saved("JPEG", None)
    plain = read(tmp_path / "plain", content)
    pixels = read_or_refused(tmp_path, content[:2] + segment(marker, name + data) + content[2:])
    assert pixels is None or any(np.array_equal(pixels, turned(plain, orientation)) for orientation in range(1, 9))


@settings(max_examples=100, deadline=None)
@given(
    orientation=st.integers(0, 9),
    others=st.dictionaries(st.sampled_from([270, 271, 272, 305, 315]), st.sampled_from(["x", "a longer text"]), max_size=4),
)
def test_blocks_that_are_whole_are_read_as_pillow_reads_them(orientation: int, others: dict[int, str]) -> None:
    written = Image.Exif()
    written.update(others)
    written[ORIENTATION] = orientation
    block = written.tobytes()
    again = Image.Exif()
    again.load(block)
    assert again[ORIENTATION] == orientation
    assert exif_orientation(block) == (orientation or -1)
    del written[ORIENTATION]
    assert exif_orientation(written.tobytes()) == 0


FILE = bytes(range(256)) * 400


@given(
    parts=st.lists(st.tuples(st.integers(0, len(FILE)), st.integers(0, len(FILE))).map(sorted).map(tuple), min_size=1, max_size=6),
    seeks=st.lists(st.tuples(st.integers(0, 3 * len(FILE)), st.integers(0, 3000)), max_size=8),
)
def test_parts_of_a_file_read_as_if_they_were_one(parts: list[tuple[int, int]], seeks: list[tuple[int, int]]) -> None:
    joined = b"".join(FILE[slice(*part)] for part in parts)
    stream = io.BufferedReader(_Excerpt(io.BytesIO(FILE), parts))
    assert stream.read() == joined
    assert stream.seek(0, io.SEEK_END) == len(joined)
    for place, count in seeks:
        stream.seek(place)
        assert stream.read(count) == joined[place : place + count]
