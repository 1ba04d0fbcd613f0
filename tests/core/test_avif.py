"""AVIFs, whose header says their size before anything is read of their pixels."""

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from seenet.core import avif
from seenet.core.errors import DataError
from seenet.core.images import image_size, read_ids, read_image
from seenet.core.opening import MAX_PIXELS

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")

COLOURS = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)


def saved(**options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(COLOURS).save(stream, "AVIF", **options)
    return stream.getvalue()


def declaring(width: int, height: int) -> bytes:
    """A small AVIF that says that it is so large."""
    content = bytearray(saved())
    place = content.index(b"ispe") + 8
    content[place : place + 8] = struct.pack(">LL", width, height)
    return bytes(content)


@pytest.mark.parametrize("side", [13_380, 14_000, 16_385, 30_000, 65_535, 2**31, 2**32 - 1])
def test_over_the_limit_it_is_too_large(tmp_path: Path, side: int) -> None:
    """Over some sizes libavif refuses a file by itself, and says nothing of its size."""
    (tmp_path / "a.avif").write_bytes(declaring(side, side))
    for read in (read_image, image_size, read_ids):
        with pytest.raises(DataError) as caught:
            read(tmp_path / "a.avif")
        assert caught.value.kind == "large"
        assert f"{side} x {side} pixels" in str(caught.value) and str(MAX_PIXELS) in str(caught.value)


MEASURE = """
import resource, sys, time
from pathlib import Path
from seenet.core.errors import DataError
from seenet.core.images import read_image
read_image(Path(sys.argv[1]))
idle, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    read_image(Path(sys.argv[2]))
except DataError as error:
    print(error.kind, time.process_time() - seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024)
"""


def test_and_is_not_read_for_that(tmp_path: Path) -> None:
    """Half a gigabyte of nothing stands behind its header."""
    (tmp_path / "small.avif").write_bytes(saved())
    with (tmp_path / "large.avif").open("wb") as file:
        file.write(declaring(50_000, 50_000))
        file.truncate(2**29)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "small.avif"), str(tmp_path / "large.avif")],
        capture_output=True,
        text=True,
        check=True,
    )
    kind, seconds, mebibytes = done.stdout.split()
    assert kind == "large" and float(seconds) < 1 and float(mebibytes) < 64


def test_sizes_and_blocks_of_real_ones() -> None:
    assert avif.header(io.BytesIO(saved())) == ((13, 9), [(0, len(saved()))])
    exif = Image.Exif()
    exif[270] = "a description"
    content = saved(exif=exif)
    size, pieces = avif.header(io.BytesIO(content))
    assert size == (13, 9)
    shown = b"".join(piece if isinstance(piece, bytes) else content[slice(*piece)] for piece in pieces)
    assert len(shown) == len(content) and content.count(b"Exif") == shown.count(b"Exif") + 1
    with Image.open(io.BytesIO(shown)) as image, Image.open(io.BytesIO(content)) as whole:
        assert "exif" not in image.info and "exif" in whole.info
        assert np.array_equal(np.asarray(image), np.asarray(whole))


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4), cut=st.integers(0, 500))
def test_damaged_headers_are_no_bug(changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(saved(exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"))
    for place, value in changes:
        content[place % len(content)] = value
    data = bytes(content[: cut or None])
    _, pieces = avif.header(io.BytesIO(data))
    lengths = [len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces]
    assert sum(lengths) == len(data) and min(lengths, default=0) >= 0
