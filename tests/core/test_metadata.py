"""Orientation is read where possible, and damaged metadata never changes the pixels."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.images import from_pil, read_header, read_ids, read_image
from seenet.core.picture_reader import PLAIN
from seenet.core.png import png_header
from tests.core.blocks import (
    BLOCKS,
    COLOURS,
    ENDLESS,
    FORMS,
    HAS_AVIF,
    ORIENTATION,
    exif,
    insert,
    is_turned,
    part_places,
    read,
    saved,
    segment,
    turn,
    turned,
)
from tests.core.tiffs import ASCII, SRATIONAL, Page, long, short, tiff_of
from tests.data.planting import chunk

FAILS: dict[str, tuple[type[Exception], ...]] = {"JPEG": (DataError,), "PNG": (), "WEBP": ()}
"""Pillow fails on some damaged metadata of a JPEG, but of no other format."""

many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.skipif(not HAS_AVIF, reason="this Pillow reads no AVIF")
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_boxes_of_an_avif_rotate_it(tmp_path: Path, orientation: int) -> None:
    """Pillow writes the orientation as boxes, and the rest as EXIF; XMP is ignored."""
    plain = read(tmp_path / "plain", saved("AVIF"))
    content = saved("AVIF", exif(turn(orientation)), b'<x tiff:Orientation="3"/>')
    assert np.array_equal(read(tmp_path / "a", content), turned(plain, orientation))


XMP = b'<x tiff:Orientation="6"/>'


@pytest.mark.parametrize(
    ("block", "xmp", "orientation"),
    [
        *(pytest.param(block, None, value, id=name) for name, (block, value) in BLOCKS.items()),
        # XMP is used if EXIF has no orientation.
        (None, XMP, 6),
        (None, b'\xff\xfe<x <<tiff:Orientation="6', 6),
        (None, b"<tiff:Orientation>6<", 6),
        (None, b'<x tiff:Orientation="sideways"/>', 1),
        (exif(ENDLESS), XMP, 6),
        (b"Exif\0\0no TIFF", XMP, 6),
        (exif(turn(3)), XMP, 3),
        (exif(turn(1)), XMP, 1),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_exif_and_xmp(
    tmp_path: Path, form: str, block: bytes | None, xmp: bytes | None, orientation: int
) -> None:
    if (form, block) == ("JPEG", BLOCKS["letters for a number"][0]):
        pytest.skip("Pillow fails there; no such file is known from practice")
    plain = read(tmp_path / "plain", saved(form))
    assert np.array_equal(read(tmp_path / "a", saved(form, block, xmp)), turned(plain, orientation))
    notes = (f"EXIF orientation {orientation}",) if orientation > 1 else ()
    assert read_header(tmp_path / "a").notes == notes


PROFILE = exif(turn(6))
DIGITS = f"\nexif\n{len(PROFILE):8}\n".encode() + PROFILE.hex().encode()


@pytest.mark.parametrize(
    ("text", "orientation"),
    [
        (DIGITS, 6),
        (DIGITS + b"\n", 6),
        (DIGITS + b"zz\0", 6),
        (DIGITS[:60] + b"zz" + DIGITS[60:], 6),
        (DIGITS[:-1], 6),
        (DIGITS[:40], 1),
        (DIGITS[:17] + b"zz" + DIGITS[19:], 1),
        (b"\n\n\n", 1),
        ("\nexif\n 9\n\N{GREEK SMALL LETTER ALPHA}".encode(), 1),
    ],
)
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_exif_as_hex_digits_in_a_text(
    tmp_path: Path, text: bytes, orientation: int, kind: bytes
) -> None:
    """ImageMagick writes EXIF so."""
    packed = {b"zTXt": b"\0", b"iTXt": b"\1\0\0\0"}.get(kind)
    data = text if packed is None else packed + zlib.compress(text)
    content = saved("PNG")
    for place in part_places("PNG", content):
        png = insert(content, place, chunk(kind, b"Raw profile type exif\0" + data))
        assert np.array_equal(read(tmp_path / "a", png), turned(COLOURS, orientation))


def wrong(data: bytes) -> bytes:
    """Return a chunk with a wrong checksum."""
    return data[:-1] + bytes([data[-1] ^ 1])


CHANGED = [
    wrong(chunk(b"tEXt", b"Comment\0hello")),
    wrong(chunk(b"eXIf", exif(turn(1))[6:])),
    wrong(chunk(b"abCd", b"data")),
]
CHUNKS = [
    *CHANGED,
    chunk(b"pHYs", b"\0\0\1"),
    chunk(b"cHRM", b"\0\0\1"),
    chunk(b"sRGB", b""),
    chunk(b"iCCP", b"name\0\7data"),
    chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(999))[:9]),
    chunk(b"zTXt", b"name\0\7data"),
    chunk(b"iTXt", b"\xff\xfe\0\0\0\0\0\xff"),
    chunk(b"zTXt", b"name\0\0" + zlib.compress(bytes(2**21))),
]


def test_png_header_verifies_all_checksums() -> None:
    content = saved("PNG")
    assert png_header(content, "a.png") == ("RGB", (9, 13))
    for place in part_places("PNG", content):
        for data in CHANGED:
            with pytest.raises(DataError, match="checksum"):
                png_header(insert(content, place, data), "a.png")
    with pytest.raises(DataError, match="no end"):
        png_header(content[:-12], "a.png")


MULTIPLE = b"MPF\0II*\0\x08\0\0\0\x01\0\x01\xb0\x04\0\x01\0\0\0\x05\0\0\0\0\0\0\0"
"""Announces five images, without their places."""
SEGMENTS = [
    segment(0xE2, MULTIPLE),
    segment(0xE2, MULTIPLE[:9]),
    segment(0xE2, b"ICC_PROFILE\0\x07\x09abc"),
    segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0"),
    segment(0xFE, b"\xff\xd9"),
    segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xff") * 2,
]


@pytest.mark.parametrize(
    ("form", "part"),
    [*(("PNG", part) for part in CHUNKS), *(("JPEG", part) for part in SEGMENTS)],
    ids=range(len(CHUNKS) + len(SEGMENTS)),
)
def test_damaged_parts_that_no_pixel_needs(tmp_path: Path, form: str, part: bytes) -> None:
    content = saved(form)
    plain = read(tmp_path / "plain", content)
    for place in part_places(form, content):
        assert np.array_equal(read(tmp_path / "a", insert(content, place, part)), plain)
        assert read_header(tmp_path / "a").notes == ()


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
def test_damaged_tags_of_a_tiff(
    tmp_path: Path, tags: dict[int, tuple[int, int, bytes]], big: bool
) -> None:
    orientation = 6 if tags.get(700, (0,))[0] == ASCII else 1
    if big:
        tags = {
            tag: (kind, count, data.ljust(8, b"\0") if count > 9 else data)
            for tag, (kind, count, data) in tags.items()
            if kind < 99
        }
    pixels = read(tmp_path / "a", tiff_of(Page(COLOURS, tags), big=big))
    assert np.array_equal(pixels, turned(COLOURS, orientation))
    (tmp_path / "mask").write_bytes(tiff_of(Page(COLOURS[..., 0], tags), big=big))
    assert np.array_equal(read_ids(tmp_path / "mask"), turned(COLOURS, orientation)[..., 0])


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "jpeg"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_compressed_tiffs_with_tags(tmp_path: Path, compression: str, orientation: int) -> None:
    """libtiff reads a file by itself; in memory it gets the tags that Pillow kept."""
    path, tags = tmp_path / "a.tif", Image.Exif()
    tags.update({ORIENTATION: orientation, 270: "a description"})
    Image.fromarray(COLOURS).save(path, compression=compression, exif=tags, resolution=300)
    with Image.open(path) as expected:
        pixels = np.asarray(expected.convert("RGB"))
    assert np.array_equal(read_image(path), pixels)
    assert np.array_equal(PLAIN.decode(path.read_bytes(), "a"), pixels)


@pytest.mark.parametrize(
    ("content", "orientation"),
    [
        (saved("PNG", b"Exif\0\0no TIFF"), 1),
        (saved("PNG", exif(turn(6), ENDLESS)), 6),
        (tiff_of(Page(COLOURS, {ORIENTATION: short(6), 34665: long(2**31)})), 6),
        (insert(saved("PNG"), 33, chunk(b"tEXt", b"Raw profile type exif\0" + DIGITS + b"\0")), 6),
    ],
    ids=["no TIFF", "PNG", "TIFF", "text"],
)
def test_images_that_pillow_opened(content: bytes, orientation: int) -> None:
    image = Image.open(io.BytesIO(content))
    for _ in range(2):  # Pillow raises only the first time
        assert np.array_equal(from_pil(image), turned(COLOURS, orientation))


@many
@given(
    form=st.sampled_from(FORMS),
    block=st.one_of(
        st.binary(max_size=90), st.sampled_from([block for block, _ in BLOCKS.values()])
    ),
    xmp=st.one_of(
        st.none(),
        st.binary(min_size=1, max_size=60),
        st.sampled_from([b'tiff:Orientation="5"', b"tiff:Orientation>77"]),
    ),
    changes=st.dictionaries(st.integers(0, 89), st.integers(0, 255), max_size=6),
)
def test_pixels_do_not_depend_on_damaged_metadata(
    tmp_path: Path, form: str, block: bytes, xmp: bytes | None, changes: dict[int, int]
) -> None:
    """At most the orientation changes, and then the header says so."""
    damaged = bytes(changes.get(place, value) for place, value in enumerate(block))
    plain = read(tmp_path / "plain", saved(form))
    content = saved(form, b"Exif\0\0" + damaged.removeprefix(b"Exif\0\0"), xmp)
    with suppress(*FAILS[form]):
        assert is_turned(read(tmp_path / "a", content), plain)


@many
@given(
    st.one_of(
        st.tuples(
            st.just("PNG"),
            st.builds(
                chunk,
                st.sampled_from(b"pHYs iCCP zTXt iTXt tEXt eXIf gAMA cHRM bKGD".split()),
                st.binary(max_size=60),
            ),
        ),
        st.tuples(
            st.just("JPEG"),
            st.builds(
                lambda marker, name, data: segment(marker, name + data),
                st.sampled_from([0xE0, 0xE1, 0xE2, 0xED, 0xEF, 0xFE]),
                st.sampled_from(
                    [
                        *(b"", b"JFIF\0", b"JFXX\0", b"MPF\0", b"ICC_PROFILE\0"),
                        *(b"Photoshop 3.0\0", PROFILE[:14]),
                    ]
                ),
                st.binary(max_size=60),
            ),
        ),
    )
)
def test_pixels_do_not_depend_on_other_parts(tmp_path: Path, case: tuple[str, bytes]) -> None:
    form, part = case
    content = saved(form)
    plain = read(tmp_path / "plain", content)
    for place in part_places(form, content):
        with suppress(*FAILS[form]):
            assert is_turned(read(tmp_path / "a", insert(content, place, part)), plain)
