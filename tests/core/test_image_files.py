"""Any file is read or refused with one DataError, within a second, 64 MiB, and no output."""

import io
import json
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from seenet.core.errors import DataError
from seenet.core.image_files import FORMATS
from seenet.core.images import (
    image_size,
    read_colours,
    read_header,
    read_ids,
    read_image,
)
from seenet.core.picture_reader import PLAIN
from tests.core.blocks import COLOURS, HAS_AVIF, exif, turn
from tests.core.hostile import BOMBS, HARMLESS, write
from tests.core.tiffs import Page, long, short, tiff_of

RNG = np.random.default_rng(0)
FORMS = [form for form in FORMATS if form != "PSD" and (form != "AVIF" or HAS_AVIF)]
READERS = (image_size, read_image, read_ids, read_colours)
SECONDS, MEBIBYTES = 1.0, 64

MEASURE = """
import json, sys, time
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from seenet.core.errors import DataError
from seenet.core.images import image_size, read_ids, read_image
rows = []
read_image(Path(sys.argv[1]))
for name in sys.argv[2:]:
    for read in (image_size, read_image, read_ids):
        idle = getrusage(RUSAGE_SELF).ru_maxrss
        seconds = time.process_time()
        try:
            read(Path(name))
            error = ""
        except DataError as refused:
            error = refused.kind
        seconds = time.process_time() - seconds
        rows.append([name, error, seconds, (getrusage(RUSAGE_SELF).ru_maxrss - idle) / 1024])
print(json.dumps(rows))
"""

many = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def measured(folder: Path, names: list[str]) -> list[tuple[str, str, float, float]]:
    """Return file, kind of error, seconds, and MiB over the idle process, of each reader."""
    Image.fromarray(COLOURS).save(folder / "warm.png")
    paths = [str(write(folder, name)) for name in names]
    command = [sys.executable, "-c", MEASURE, str(folder / "warm.png"), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [tuple(row) for row in json.loads(done.stdout)]


@pytest.mark.parametrize("files", [BOMBS, HARMLESS], ids=["bombs", "harmless"])
def test_hostile_files_cost_little(tmp_path: Path, files: dict[str, object]) -> None:
    for name, error, seconds, mebibytes in measured(tmp_path, list(files)):
        kind = "animated" if Path(name).name in {"frames.gif", "pages.tif"} else "large"
        assert files is HARMLESS or error == kind, name
        assert seconds < SECONDS and mebibytes < MEBIBYTES, (name, seconds, mebibytes)


def whole(form: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(COLOURS).save(stream, form)
    return stream.getvalue()


def judged(path: Path, content: bytes) -> np.ndarray | None:
    """Return the image, or None; check that all readers refuse in one line with a kind."""
    path.write_bytes(content)
    found, errors = None, []
    for read in READERS:
        try:
            result = read(path)
            found = np.asarray(result) if read is read_image else found
        except DataError as error:
            errors.append(error)
    assert all(
        str(error).startswith(f"{path}: ") and "\n" not in str(error) and error.kind and error.fix
        for error in errors
    ), errors
    return found


@pytest.mark.parametrize("form", FORMS)
def test_truncated_files(tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str]) -> None:
    content = whole(form)
    complete = judged(tmp_path / "whole", content)
    assert complete is not None
    for length in range(0, len(content), max(1, len(content) // 97)):
        found = judged(tmp_path / "cut", content[:length])
        # What is missing may be only what follows the pixels.
        assert found is None or (np.array_equal(found, complete) and length > len(content) // 2)
    assert capfd.readouterr().err == ""


@many
@given(
    start=st.sampled_from(
        [b"", *(whole(form)[:24] for form in FORMS), b"%!PS-Adobe-3.0 EPSF-3.0\n", b"SIMPLE  ="]
    ),
    rest=st.binary(max_size=300),
)
@example(
    start=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", rest=b"%%EndComments\nshowpage\n"
)
def test_any_bytes_after_any_magic(tmp_path: Path, start: bytes, rest: bytes) -> None:
    judged(tmp_path / "any", start + rest)


@pytest.mark.parametrize(("orientation", "size"), [(1, (9, 13)), (6, (13, 9))])
def test_the_size_of_a_png_needs_no_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: int, size: tuple[int, int]
) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=exif(turn(orientation)))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _: pytest.fail("decoded"))
    assert image_size(tmp_path / "a.png") == size


IMAGE = Image.fromarray(COLOURS)
PALETTE = IMAGE.quantize(16)


@pytest.mark.parametrize(
    ("name", "image", "options", "notes"),
    [
        ("rgb.png", IMAGE, {}, ()),
        ("turned.jpg", IMAGE, {"exif": exif(turn(6))}, ("EXIF orientation 6",)),
        ("grey.jpg", IMAGE.convert("L"), {}, ("grey",)),
        ("16.png", Image.fromarray(COLOURS[..., 0].astype(np.uint16)), {}, ("16-bit", "grey")),
        ("palette.png", PALETTE, {}, ("palette",)),
        ("clear.png", PALETTE, {"transparency": 0}, ("palette", "alpha")),
        ("alpha.png", IMAGE.convert("RGBA"), {}, ("alpha",)),
        ("ink.jpg", IMAGE.convert("CMYK"), {}, ("CMYK",)),
        ("ink.tif", IMAGE.convert("CMYK"), {}, ("CMYK",)),
    ],
)
def test_notes(
    tmp_path: Path, name: str, image: Image.Image, options: dict[str, object], notes: tuple[str]
) -> None:
    image.save(tmp_path / name, **options)
    assert read_header(tmp_path / name).notes == notes


def test_postscript_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands PostScript to Ghostscript."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    IMAGE.save(tmp_path / "drawing.png", "EPS")
    with pytest.raises(DataError, match="not a picture"):
        read_image(tmp_path / "drawing.png")


WHOLE = RNG.integers(0, 256, (8, 12, 3), dtype=np.uint8)
SMALL = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
REDUCED, MASK, BOTH, OF_MANY = ({254: long(bits)} for bits in (1, 4, 5, 2))
COPY = Page(SMALL, REDUCED)
MASK_PAGE = Page(WHOLE[..., 0], {**MASK, 262: short(4)})

ONE_PAGE = {
    "alone": [Page(WHOLE)],
    "a smaller copy after it": [Page(WHOLE), COPY],
    "copies on both sides": [COPY, Page(WHOLE), COPY],
    "a mask": [Page(WHOLE), MASK_PAGE],
    "a mask and its copy": [
        Page(WHOLE), COPY, MASK_PAGE, Page(SMALL[..., 0], {**BOTH, 262: short(4)}),
    ],
    "one page of several, by its tag": [Page(WHOLE, OF_MANY)],
    "a copy whose tag has 16 bits": [Page(WHOLE), Page(SMALL, {254: short(1)})],
    "nothing but a smaller copy": [Page(WHOLE, REDUCED)],
    "a copy of a kind that is not read": [Page(WHOLE), Page(SMALL, {**REDUCED, 259: short(60000)})],
    "a directory that is no page": [Page(WHOLE), Page(SMALL, {256: (7, 0, b""), 257: (7, 0, b"")})],
}  # fmt: skip
SEVERAL_PAGES = {
    "two pages": [Page(WHOLE), Page(WHOLE)],
    "a copy between them": [Page(WHOLE), COPY, Page(WHOLE)],
    "two pages after a copy": [COPY, Page(WHOLE), Page(SMALL)],
    "a page of several": [Page(WHOLE, OF_MANY), Page(WHOLE, OF_MANY)],
}


@pytest.mark.parametrize("name", ONE_PAGE)
@pytest.mark.parametrize("big", [False, True])
def test_copies_and_masks_are_no_pages(tmp_path: Path, name: str, big: bool) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(*ONE_PAGE[name], big=big))
    assert np.array_equal(read_image(path), WHOLE)
    assert image_size(path) == WHOLE.shape[:2]
    assert np.array_equal(PLAIN.decode(path.read_bytes(), "a"), WHOLE)


@pytest.mark.parametrize("name", SEVERAL_PAGES)
@pytest.mark.parametrize("big", [False, True])
def test_several_pages_are_refused(tmp_path: Path, name: str, big: bool) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_of(*SEVERAL_PAGES[name], big=big))
    for read in (read_image, image_size, read_ids):
        with pytest.raises(DataError) as caught:
            read(tmp_path / "a.tif")
        assert caught.value.kind == "animated"


@pytest.mark.parametrize("next_page", [None, 2**32 - 1], ids=["cyclic", "beyond the end"])
def test_a_wrong_link_to_the_next_page_ends_the_file(next_page: int | None) -> None:
    content = tiff_of(Page(WHOLE), COPY)
    link = content[4:8] if next_page is None else struct.pack("<L", next_page)
    assert np.array_equal(PLAIN.decode(content[:-4] + link, "a"), WHOLE)


@settings(max_examples=200, deadline=None)
@given(
    big=st.booleans(),
    changes=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 700),
)
def test_damaged_directories_of_a_tiff(big: bool, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(tiff_of(Page(WHOLE[:2, :2]), Page(SMALL[:1, :1], REDUCED), big=big))
    for place, value in changes:
        content[place % len(content)] = value
    with suppress(DataError):
        pixels = PLAIN.decode(bytes(content[: cut or None]), "a")
        assert pixels.dtype == np.uint8 and pixels.ndim == 3
