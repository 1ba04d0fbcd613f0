"""Whatever stands beside the pixels of a picture, they stay what they are."""

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from seenet.core.metadata import orientation_of
from tests.core.blocks import BLOCKS, COLOURS, FORMS, ORIENTATION, read, saved, segment, tags_of, turned
from tests.data.planting import chunk


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
    pixels = read(tmp_path / "picture", saved(form, b"Exif\0\0" + bytes(damaged).removeprefix(b"Exif\0\0"), xmp))
    assert any(np.array_equal(pixels, turned(plain, orientation)) for orientation in range(1, 9))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([b"pHYs", b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf", b"tRNS", b"gAMA", b"cHRM", b"bKGD"]),
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
    pixels = read(tmp_path / "picture", content[:2] + segment(marker, name + data) + content[2:])
    assert any(np.array_equal(pixels, turned(plain, orientation)) for orientation in range(1, 9))


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
    assert orientation_of([block], b'tiff:Orientation="5"') == (orientation if 1 <= orientation <= 8 else 1)
    del written[ORIENTATION]
    assert orientation_of([written.tobytes()], b'tiff:Orientation="5"') == 5
