"""Whatever a file holds: a right picture or one DataError, within a second and 64 MiB, and nothing on stderr."""

import io
import json
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, features

from seenet.core.errors import DataError
from seenet.core.image_files import FORMATS
from seenet.core.images import image_size, read_colours, read_encoded, read_header, read_ids, read_image
from tests.core.hostile import BOMBS, HARMLESS, write
from tests.core.tiffs import Page, long, short, tiff_of
from tests.data.planting import chunk, png_of

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (9, 13, 3), dtype=np.uint8)
FORMS = [form for form in ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000", "PPM", "TGA", "PCX", "SGI", "AVIF") if form in FORMATS]
if not features.check("avif"):
    FORMS = [form for form in FORMS if form != "AVIF"]
READERS = (image_size, read_image, read_ids, read_colours)
SECONDS, MEBIBYTES = 1.0, 64

MEASURE = """
import json, resource, sys, time
from pathlib import Path
from seenet.core.errors import DataError
from seenet.core.images import image_size, read_ids, read_image
from seenet.core.image_files import FORMATS
rows = []
read_image(Path(sys.argv[1]))
for name in sys.argv[2:]:
    for read in (image_size, read_image, read_ids):
        idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = time.process_time()
        try:
            read(Path(name))
            error = ""
        except DataError as refused:
            error = refused.kind
        rows.append([name, error, time.process_time() - seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024])
print(json.dumps(rows))
"""


def measured(folder: Path, names: list[str]) -> list[tuple[str, str, float, float]]:
    """File, kind of error, seconds of processor time and MiB over the idle process, of each reader in a process of its own."""
    Image.fromarray(COLOURS).save(folder / "warm.png")
    paths = [str(write(folder, name)) for name in names]
    done = subprocess.run([sys.executable, "-c", MEASURE, str(folder / "warm.png"), *paths], capture_output=True, text=True, check=True)
    return [tuple(row) for row in json.loads(done.stdout)]


def test_bombs_are_refused_at_once(tmp_path: Path) -> None:
    for name, error, seconds, mebibytes in measured(tmp_path, list(BOMBS)):
        assert error in {"large", "animated", "damaged"}, name
        assert seconds < SECONDS and mebibytes < MEBIBYTES, (name, seconds, mebibytes)


def test_files_that_hold_more_than_they_need_cost_no_more(tmp_path: Path) -> None:
    for name, _, seconds, mebibytes in measured(tmp_path, list(HARMLESS)):
        assert seconds < SECONDS and mebibytes < MEBIBYTES, (name, seconds, mebibytes)


def whole(form: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(COLOURS).save(stream, form)
    return stream.getvalue()


def judged(path: Path, content: bytes) -> np.ndarray | None:
    """The picture, where it is one; whatever reader is asked, its error is a DataError of one line with the file and a kind."""
    path.write_bytes(content)
    found, refused = None, []
    for read in READERS:
        try:
            result = read(path)
            if read is read_image:
                found = np.asarray(result)
        except DataError as error:
            refused.append(error)
    assert all(str(error).startswith(f"{path}: ") and "\n" not in str(error) and error.kind and error.fix for error in refused), refused
    return found


@pytest.mark.parametrize("form", FORMS)
def test_cut_at_every_byte(tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str]) -> None:
    content = whole(form)
    complete = judged(tmp_path / "whole", content)
    assert complete is not None
    for length in range(0, len(content), max(1, len(content) // 97)):
        found = judged(tmp_path / "cut", content[:length])
        # What is missing may be only what stands behind the pixels.
        assert found is None or (np.array_equal(found, complete) and length > len(content) // 2), length
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("form", FORMS)
def test_flipped_bytes(tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str]) -> None:
    content, rng = whole(form), np.random.default_rng(len(form))
    for place in range(0, len(content), max(1, len(content) // 150)):
        damaged = bytearray(content)
        damaged[place] ^= int(rng.integers(1, 256))
        found = judged(tmp_path / "flipped", bytes(damaged))
        # Flips in a header may make it a larger picture; never one of other kind.
        assert found is None or (found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3)
    assert capfd.readouterr().err == ""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from([b"", *(whole(form)[:24] for form in FORMS), b"%!PS-Adobe-3.0 EPSF-3.0\n", b"SIMPLE  ="]),
    rest=st.binary(max_size=300),
)
@example(start=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", rest=b"%%EndComments\nshowpage\n")
def test_anything_behind_any_magic(tmp_path: Path, start: bytes, rest: bytes) -> None:
    judged(tmp_path / "any", start + rest)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.sampled_from([b"eXIf", b"tEXt", b"iTXt", b"zTXt"]), max_size=2),
    after=st.lists(st.sampled_from([b"eXIf", b"tEXt", b"iTXt", b"zTXt"]), max_size=2),
    turns=st.lists(st.integers(0, 9), min_size=4, max_size=4),
)
def test_the_size_of_a_png_is_that_of_its_picture(tmp_path: Path, before: list[bytes], after: list[bytes], turns: list[int]) -> None:
    """Wherever the tag stands, in whichever of a PNG's ways to say it, once or several times."""
    chunks = [tag(kind, turn) for kind, turn in zip([*before, *after], turns, strict=False)]
    path = tmp_path / "tagged.png"
    path.write_bytes(png_of(5, 3, before=b"".join(chunks[: len(before)]), after=b"".join(chunks[len(before) :])))
    try:
        shape = read_image(path).shape[:2]
    except DataError:
        return
    assert image_size(path) == shape


def tag(kind: bytes, orientation: int) -> bytes:
    """A chunk that says how the picture is turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == b"eXIf":
        return chunk(kind, exif.tobytes().removeprefix(b"Exif\0\0"))
    if kind == b"iTXt":
        return chunk(kind, b"XML:com.adobe.xmp\0\0\0\0\0" + f'<x tiff:Orientation="{orientation}"/>'.encode())
    data = exif.tobytes()
    text = f"\nexif\n{len(data):8}\n{data.hex()}\n".encode()
    return chunk(kind, b"Raw profile type exif\0" + (text if kind == b"tEXt" else b"\0" + zlib.compress(text)))


def test_the_header_of_a_png_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOURS).save(tmp_path / "plain.png", pnginfo=None)
    Image.fromarray(COLOURS).save(tmp_path / "turned.png", exif=exif)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _: pytest.fail("decoded"))
    assert image_size(tmp_path / "plain.png") == (9, 13)
    assert image_size(tmp_path / "turned.png") == (13, 9)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "GIF"])
def test_what_begins_right_is_damaged_and_not_another_kind(tmp_path: Path, form: str) -> None:
    """A TIFF says what it holds at its end, so that no reader takes the first half."""
    content = whole(form)
    path = tmp_path / "half"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert caught.value.kind == "damaged"
    path.write_bytes(b"<html>" + content)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert caught.value.kind == "format"


def test_notes(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(COLOURS)
    wide = (COLOURS.astype(">u2") * 257).tobytes()
    rows = b"".join(b"\0" + wide[row * 78 : row * 78 + 78] for row in range(9))
    header = chunk(b"IHDR", bytes([0, 0, 0, 13, 0, 0, 0, 9, 16, 2, 0, 0, 0]))
    deep = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(deep)
    palette = image.quantize(16)
    for name, stored, options, notes in (
        ("rgb.png", image, {}, ()),
        ("turned.jpg", image, {"exif": exif}, ("EXIF orientation 6",)),
        ("grey.jpg", image.convert("L"), {}, ("grey",)),
        ("wide.png", Image.fromarray(COLOURS[..., 0].astype(np.uint16)), {}, ("16-bit", "grey")),
        ("palette.png", palette, {}, ("palette",)),
        ("clear.png", palette, {"transparency": 0}, ("palette", "alpha")),
        ("alpha.png", image.convert("RGBA"), {}, ("alpha",)),
        ("ink.jpg", image.convert("CMYK"), {}, ("CMYK",)),
        ("ink.tif", image.convert("CMYK"), {}, ("CMYK",)),
    ):
        stored.save(tmp_path / name, **options)
        assert read_header(tmp_path / name).notes == notes, name
    assert read_header(tmp_path / "deep.png").notes == ("16-bit",)
    assert np.array_equal(read_image(tmp_path / "deep.png"), COLOURS)


def test_no_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands PostScript to Ghostscript."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    stream = io.BytesIO()
    Image.fromarray(COLOURS).save(stream, "EPS")
    (tmp_path / "drawing.png").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="not a picture"):
        read_image(tmp_path / "drawing.png")
    assert "EPS" not in FORMATS


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


@pytest.mark.parametrize("name", ONE_PICTURE)
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
    pixels = None
    with suppress(DataError):
        pixels = read_encoded(data, "a")
    assert pixels is None or (pixels.dtype == np.uint8 and pixels.ndim == 3)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_an_avif_over_the_pixel_limit_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, "declared.avif")
    for reading in (image_size, read_image):
        with pytest.raises(DataError, match="60000 x 60000") as caught:
            reading(path)
        assert caught.value.kind == "large"
