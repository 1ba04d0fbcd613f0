"""The decoder: every mode gives the right values, or one line."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.images import (
    from_pil,
    image_size,
    read_colours,
    read_header,
    read_ids,
    read_image,
    write_mask,
)
from seenet.core.labels import LabelSet, voc_colours
from seenet.data.camvid import CAMVID11
from tests.core.blocks import ORIENTATION
from tests.core.tiffs import Page, short, tiff_of
from tests.data.planting import chunk

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
WIDE = RAMP.astype(np.uint16) * 257
GREY = np.repeat(RAMP[:, :, None], 3, 2)
RED = np.zeros((4, 4, 3), np.uint8)
RED[:2] = (255, 0, 0)
RED_IMAGE = Image.fromarray(RED)
BINARY = (RAMP > 100).astype(np.uint8)
WHITE = np.repeat(BINARY[:, :, None] * 255, 3, 2)
BLACK_TO_RED = [value for red in range(256) for value in (red, 0, 0)]

many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def with_alpha(image: Image.Image, alpha: np.ndarray) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.fromarray(alpha))
    return image


def with_palette(ids: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(ids)
    image.putpalette(colours)
    return image


@pytest.mark.parametrize(
    ("name", "image", "options", "expected"),
    [
        ("grey.png", Image.fromarray(RAMP), {}, GREY),
        ("grey-alpha.png", with_alpha(Image.fromarray(RAMP), RAMP[::-1].copy()), {}, GREY),
        ("binary.png", Image.fromarray(BINARY * 255).convert("1"), {}, WHITE),
        ("palette.png", RED_IMAGE.convert("P", palette=Image.Palette.ADAPTIVE), {}, RED),
        ("clear.png", with_palette(RED[..., 0], BLACK_TO_RED), {"transparency": 255}, RED),
        ("alpha.png", with_alpha(RED_IMAGE, np.zeros((4, 4), np.uint8)), {}, RED),
        ("ink.tif", RED_IMAGE.convert("CMYK"), {}, RED),
    ],
)  # fmt: skip
def test_modes(
    tmp_path: Path, name: str, image: Image.Image, options: dict[str, object], expected: np.ndarray
) -> None:
    assert np.array_equal(read_image(saved(tmp_path / name, image, **options)), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotates_images_and_masks(tmp_path: Path, orientation: int) -> None:
    tags = Image.Exif()
    tags.update({ORIENTATION: orientation, 270: "a description"})
    path = saved(tmp_path / "e.png", Image.fromarray(RAMP), exif=tags)
    turned = {
        1: RAMP, 2: RAMP[:, ::-1], 3: RAMP[::-1, ::-1], 4: RAMP[::-1], 5: RAMP.T,
        6: np.rot90(RAMP, -1), 7: RAMP[::-1, ::-1].T, 8: np.rot90(RAMP, 1),
    }[orientation]  # fmt: skip
    assert np.array_equal(read_image(path)[..., 0], turned)
    assert np.array_equal(read_ids(path), turned)
    assert image_size(path) == turned.shape


@pytest.mark.parametrize(
    ("form", "dtype"),
    [("PNG", "<u2"), ("PPM", "<u2"), ("JPEG2000", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")],
)
def test_16_bit_grey(tmp_path: Path, form: str, dtype: str) -> None:
    path = tmp_path / "a"
    Image.fromarray(WIDE.astype(dtype)).save(path, form)
    assert np.array_equal(read_image(path), GREY)
    assert np.array_equal(read_ids(path), WIDE)
    assert read_header(path).notes == ("16-bit", "grey")
    with Image.open(path) as image:
        assert np.array_equal(from_pil(image), GREY)


def test_16_bit_colours_keep_the_high_byte(tmp_path: Path) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0))
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in WIDE)
    data = header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert np.array_equal(read_image(tmp_path / "a.png"), GREY)
    assert read_header(tmp_path / "a.png").notes == ("16-bit",)


@pytest.mark.parametrize(("bits", "white_is_zero"), [(12, False), (16, False), (16, True)])
def test_grey_tiffs_of_any_range(tmp_path: Path, bits: int, white_is_zero: bool) -> None:
    rasterio = pytest.importorskip("rasterio")
    top = 2**bits - 1
    values = (RAMP.astype(np.uint32) * top // 255).astype(np.uint16)
    profile = {
        "driver": "GTiff", "count": 1, "height": 6, "width": 8, "dtype": "uint16", "nbits": bits,
        "photometric": "MINISWHITE" if white_is_zero else "MINISBLACK",
    }  # fmt: skip
    with rasterio.open(tmp_path / "w.tif", "w", **profile) as file:
        file.write(values[None])
    scaled = np.round(values * (255 / top)).astype(int)
    expected = 255 - scaled if white_is_zero else scaled
    assert np.array_equal(read_image(tmp_path / "w.tif")[..., 0], expected)


@pytest.mark.parametrize("top", [300, 1023, 65535])
@pytest.mark.parametrize("magic", [b"P2", b"P5"])
def test_pgms_of_any_range(tmp_path: Path, magic: bytes, top: int) -> None:
    values = np.array([0, top // 2, top])
    data = " ".join(map(str, values)).encode() if magic == b"P2" else values.astype(">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(b"%s\n3 1\n%d\n%s" % (magic, top, data))
    assert np.abs(read_image(tmp_path / "a.pgm")[0, :, 0] - values / top * 255).max() < 1


def test_a_photograph_with_an_extra_image(tmp_path: Path) -> None:
    """Many phones append a depth map; that is no animation."""
    first, more = Image.new("RGB", (8, 6), (250, 0, 0)), Image.new("RGB", (8, 6))
    path = saved(tmp_path / "phone.mpo", first, save_all=True, append_images=[more])
    assert abs(read_image(path).astype(int) - (250, 0, 0)).max() < 8


@pytest.mark.parametrize(
    ("image", "options", "ids"),
    [
        (with_alpha(Image.fromarray(RAMP), RAMP[::-1].copy()), {}, RAMP),
        (with_palette(BINARY, [10, 20, 30, 200, 100, 50]), {"transparency": 0}, BINARY),
        (Image.fromarray(BINARY * 255).convert("1"), {}, BINARY),
    ],
)
def test_ids_are_stored_values(
    tmp_path: Path, image: Image.Image, options: dict[str, object], ids: np.ndarray
) -> None:
    assert np.array_equal(read_ids(saved(tmp_path / "m.png", image, **options)), ids)


@pytest.mark.parametrize(
    ("labels", "ids"),
    [
        (CAMVID11, [[0, 1, 10], [11, 3, 2]]),
        (
            LabelSet("many", tuple(map(str, range(300))), voc_colours(300), ignore=65535),
            [[0, 299], [256, 65535]],
        ),
    ],
)
def test_masks_are_written_and_read(tmp_path: Path, labels: LabelSet, ids: list[list[int]]) -> None:
    write_mask(tmp_path / "m.png", np.array(ids), labels)
    assert read_ids(tmp_path / "m.png").tolist() == ids
    if labels is CAMVID11:
        assert tuple(read_colours(tmp_path / "m.png")[0, 1]) == CAMVID11.colours[1]


def refused(path: Path, content: bytes) -> str:
    """Write a file that is refused for its values; return the error."""
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert caught.value.kind == "format" and caught.value.fix
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def ramp(dtype: type, low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, 48).reshape(6, 8).astype(dtype)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tiff_of(Page(ramp(np.float32, -3.2, 1041))), "float32 values from -3.2 to 1041"),
        (tiff_of(Page(ramp(np.int16, -7, 300))), "int16 values from -7 to 300"),
        (tiff_of(Page(ramp(np.int8, -128, 127))), "int8 values from -128 to 127"),
        (tiff_of(Page(ramp(np.uint32, 0, 200))), "uint32 values from 0 to 200"),
        (tiff_of(Page(ramp(np.uint32, 0, 2**32 - 1))), "uint32 values from 0 to 4.294967e+09"),
        (b"Pf\n2 1\n-1.0\n" + np.array([0.5, 2], "<f4").tobytes(), "float32 values from 0.5 to 2"),
        # Pillow does not read these.
        *(
            (tiff_of(Page(np.ones((6, 8, bands), dtype).squeeze())), f"{dtype.__name__} values")
            for dtype, bands in (
                (np.float64, 1), (np.float32, 3), (np.int16, 3), (np.uint32, 3), (np.float16, 1),
            )
        ),
    ],
)  # fmt: skip
def test_values_of_unknown_range_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    assert f"{message}, expected 8 or 16 bits" in refused(tmp_path / "a", content)


@many
@given(
    values=st.one_of(
        arrays(np.float32, (3, 4), elements=st.floats(width=32)), arrays(np.int32, (3, 4))
    )
)
@example(values=np.full((3, 4), np.nan, np.float32))
@example(values=np.full((3, 4), np.inf, np.float32))
@example(values=np.full((3, 4), 7, np.float32))
@example(values=np.array([[0, np.nan, -np.inf, 1.5]], np.float32))
def test_floats_and_wide_integers_are_refused_with_their_finite_range(
    tmp_path: Path, values: np.ndarray
) -> None:
    finite = values[np.isfinite(values)]
    limits = f" from {finite.min():.7g} to {finite.max():.7g}" if finite.size else ", none of them"
    found, path = f"{values.dtype} values{limits}", tmp_path / "a.tif"
    assert found in refused(path, tiff_of(Page(values)))
    assert image_size(path) == values.shape
    with pytest.raises(DataError) as caught:
        from_pil(Image.fromarray(values))
    assert found in str(caught.value)
    if values.dtype == np.int32:
        assert np.array_equal(read_ids(path), values)


@pytest.mark.parametrize("alpha", [1, 7, 128, 255])
@pytest.mark.parametrize("bands", [2, 4])
def test_premultiplied_colours(tmp_path: Path, bands: int, alpha: int) -> None:
    """They are restored, up to the rounding of what was stored."""
    plain = np.random.default_rng(alpha).integers(0, 256, (6, 8, bands), dtype=np.uint8)
    plain[..., -1] = alpha
    stored = plain.copy()
    stored[..., :-1] = (plain[..., :-1].astype(int) * alpha + 127) // 255
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(Page(stored, {338: short(1)})))
    assert np.abs(read_image(path).astype(int) - plain[..., :-1]).max() <= 255 / alpha
    assert "alpha" in read_header(path).notes
    if bands == 2 and alpha == 255:
        assert np.array_equal(read_ids(path), plain[..., 0])


def test_a_png_in_mode_i_has_16_bits() -> None:
    """Older Pillows opened 16-bit PNGs so."""
    image = Image.fromarray(WIDE.astype(np.int32))
    image.format = "PNG"
    assert np.array_equal(from_pil(image), GREY)
