"""Which page of a TIFF is the picture."""

import io
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seenet.core import tiff
from seenet.core.errors import DataError
from seenet.core.images import image_size, read_encoded, read_ids, read_image
from tests.core.tiffs import Page, long, short, tiff_of

RNG = np.random.default_rng(0)
WHOLE = RNG.integers(0, 256, (8, 12, 3), dtype=np.uint8)
SMALL = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
REDUCED, MASK, BOTH, OF_MANY = ({254: long(bits)} for bits in (1, 4, 5, 2))
MASK_TAGS = {**MASK, 262: short(4)}

ONE_PICTURE = {
    "alone": [Page(WHOLE)],
    "a smaller copy behind it": [Page(WHOLE), Page(SMALL, REDUCED)],
    "a smaller copy before it": [Page(SMALL, REDUCED), Page(WHOLE)],
    "copies on both sides": [Page(SMALL, REDUCED), Page(WHOLE), Page(SMALL, REDUCED)],
    "a mask": [Page(WHOLE), Page(WHOLE[..., 0], MASK_TAGS)],
    "a mask and its copy": [
        Page(WHOLE),
        Page(SMALL, REDUCED),
        Page(WHOLE[..., 0], MASK_TAGS),
        Page(SMALL[..., 0], {**BOTH, 262: short(4)}),
    ],
    "one page of several, by its tag": [Page(WHOLE, OF_MANY)],
    "a copy whose tag has 16 bits": [Page(WHOLE), Page(SMALL, {254: short(1)})],
    "nothing but a smaller copy": [Page(WHOLE, REDUCED)],
    "a copy of a kind that is not read": [Page(WHOLE), Page(SMALL, {**REDUCED, 259: short(60000)})],
    "a directory that is no page": [Page(WHOLE), Page(SMALL, {256: (7, 0, b""), 257: (7, 0, b"")})],
}
SEVERAL = {
    "two pages": [Page(WHOLE), Page(WHOLE)],
    "a copy between them": [Page(WHOLE), Page(SMALL, REDUCED), Page(WHOLE)],
    "two pages behind a copy": [Page(SMALL, REDUCED), Page(WHOLE), Page(SMALL)],
    "a page of several": [Page(WHOLE, OF_MANY), Page(WHOLE, OF_MANY)],
}


@pytest.mark.parametrize("name", [name for name in ONE_PICTURE if name != "a directory that is no page"])
@pytest.mark.parametrize("big", [False, True])
def test_copies_and_masks_are_no_pages(tmp_path: Path, name: str, big: bool) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(*ONE_PICTURE[name], big=big))
    assert np.array_equal(read_image(path), WHOLE)
    assert image_size(path) == WHOLE.shape[:2]
    assert np.array_equal(read_encoded(path.read_bytes(), "a"), WHOLE)


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("big", [False, True])
def test_several_pages_are_refused(tmp_path: Path, name: str, big: bool) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_of(*SEVERAL[name], big=big))
    for read in (read_image, image_size, read_ids):
        with pytest.raises(DataError) as caught:
            read(tmp_path / "a.tif")
        assert caught.value.kind == "animated"


def test_a_mask_with_copies_is_a_mask(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_of(Page(SMALL[..., 0], REDUCED), Page(WHOLE[..., 0]), Page(SMALL[..., 0], REDUCED)))
    assert np.array_equal(read_ids(tmp_path / "a.tif"), WHOLE[..., 0])


def test_compressed_pages_are_found_where_they_are(tmp_path: Path) -> None:
    """libtiff opens the file once more, at the place that it is told."""
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "width": 64, "height": 48, "count": 3, "dtype": "uint8", "compress": "deflate", "tiled": True}
    pixels = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", blockxsize=16, blockysize=16, **profile) as file,
    ):
        file.write(np.moveaxis(pixels, 2, 0))
        file.write_mask(pixels[..., 0] > 9)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    with path.open("rb") as stream:
        assert len(list(tiff.directories(stream))) >= 4
    assert np.array_equal(read_image(path), pixels)
    assert np.array_equal(read_encoded(path.read_bytes(), "a"), pixels)


def test_a_chain_that_bites_its_tail_ends(tmp_path: Path) -> None:
    content = bytearray(tiff_of(Page(WHOLE), Page(SMALL, REDUCED)))
    (first,) = struct.unpack_from("<L", content, 4)
    content[-4:] = struct.pack("<L", first)
    assert np.array_equal(read_encoded(bytes(content), "a"), WHOLE)
    content[-4:] = struct.pack("<L", 2**32 - 1)
    assert np.array_equal(read_encoded(bytes(content), "a"), WHOLE)


def test_a_file_may_end_with_its_entries() -> None:
    """Without the place of a next directory, which is 0 in other files."""
    content = tiff_of(Page(WHOLE))
    assert content.endswith(bytes(4))
    for cut in (1, 4):
        assert np.array_equal(read_encoded(content[:-cut], "a"), WHOLE)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(big=st.booleans(), changes=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=4), cut=st.integers(0, 700))
def test_damaged_directories_are_read_or_refused(big: bool, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(tiff_of(Page(WHOLE[:2, :2]), Page(SMALL[:1, :1], REDUCED), big=big))
    for place, value in changes:
        content[place % len(content)] = value
    data = bytes(content[: cut or None])
    seen = list(tiff.directories(io.BytesIO(data)))
    assert len(seen) <= tiff.MOST_DIRECTORIES
    assert all(directory.place + 2 <= len(data) for directory in seen)
    pixels = None
    with suppress(DataError):
        pixels = read_encoded(data, "a")
    assert pixels is None or (pixels.dtype == np.uint8 and pixels.ndim == 3)
