"""The one decoder: every mode to the right values, and everything hostile to one line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, features

from seenet.core.errors import DataError
from seenet.core.images import MAX_PIXELS, from_pil, image_size, read_colours, read_header, read_ids, read_image, write_mask
from seenet.core.labels import LabelSet, voc_colours
from seenet.data.camvid import CAMVID11
from tests.core.tiffs import Page, short, tiff_of

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_grey_and_16_bit(tmp_path: Path) -> None:
    grey = read_image(saved(tmp_path / "g.png", Image.fromarray(RAMP)))
    wide = read_image(saved(tmp_path / "w.png", Image.fromarray(RAMP.astype(np.uint16) * 257)))
    assert np.array_equal(grey, np.repeat(RAMP[:, :, None], 3, 2))
    assert np.array_equal(wide, grey)


def test_palette_alpha_and_cmyk(tmp_path: Path) -> None:
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[:2] = (255, 0, 0)
    image = Image.fromarray(rgb)
    assert np.array_equal(read_image(saved(tmp_path / "p.png", image.convert("P", palette=Image.Palette.ADAPTIVE))), rgb)
    alpha = image.convert("RGBA")
    alpha.putalpha(0)
    assert np.array_equal(read_image(saved(tmp_path / "a.png", alpha)), rgb)
    assert np.array_equal(read_image(saved(tmp_path / "c.tif", image.convert("CMYK"))), rgb)
    assert read_image(saved(tmp_path / "b.png", image.convert("1"))).shape == (4, 4, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "e.png", Image.fromarray(RAMP), exif=exif)
    turned = {
        1: RAMP, 2: RAMP[:, ::-1], 3: RAMP[::-1, ::-1], 4: RAMP[::-1], 5: RAMP.T, 6: np.rot90(RAMP, -1),
        7: RAMP[::-1, ::-1].T, 8: np.rot90(RAMP, 1),
    }[orientation]  # fmt: skip
    assert np.array_equal(read_image(path)[..., 0], turned)
    assert np.array_equal(read_ids(path), turned)
    assert image_size(path) == turned.shape


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_header_gives_the_decoded_size_in_every_format(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"e{suffix}", Image.fromarray(RAMP), exif=exif)
    assert image_size(path) == read_image(path).shape[:2] == ((8, 6) if orientation > 4 else (6, 8))
    turned = np.rot90(RAMP, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    assert abs(read_image(path)[..., 0].astype(int) - turned).max() <= (0 if suffix == ".tif" else 12)


@pytest.mark.parametrize(("bits", "white_is_zero"), [(12, False), (16, False), (16, True)])
def test_wide_tiffs_of_any_range(tmp_path: Path, bits: int, white_is_zero: bool) -> None:
    rasterio = pytest.importorskip("rasterio")
    top = 2**bits - 1
    values = (RAMP.astype(np.uint32) * top // 255).astype(np.uint16)[None]
    photometric = "MINISWHITE" if white_is_zero else "MINISBLACK"
    profile = {"count": 1, "height": 6, "width": 8, "dtype": "uint16", "nbits": bits, "photometric": photometric}
    with rasterio.open(tmp_path / "w.tif", "w", driver="GTiff", **profile) as file:
        file.write(values)
    expected = np.round(values[0] * (255 / top)).astype(int)
    assert np.array_equal(read_image(tmp_path / "w.tif")[..., 0], 255 - expected if white_is_zero else expected)


@pytest.mark.parametrize("dtype", [">u2", "<u2"])
def test_wide_tiffs(tmp_path: Path, dtype: object) -> None:
    wide = RAMP.astype(np.uint16) * 257
    path = saved(tmp_path / "w.tif", Image.fromarray(wide.astype(dtype)))  # type: ignore[call-overload]
    assert np.array_equal(read_image(path)[..., 0], RAMP)
    assert np.array_equal(read_ids(path), wide)


def test_transparency_is_no_colour(tmp_path: Path) -> None:
    grey = Image.fromarray(RAMP)
    grey.putalpha(Image.fromarray(RAMP[::-1].copy()))
    assert grey.mode == "LA"
    path = saved(tmp_path / "la.png", grey)
    assert np.array_equal(read_image(path)[..., 2], RAMP)
    assert np.array_equal(read_ids(path), RAMP)
    palette = Image.fromarray((RAMP > 100).astype(np.uint8))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    path = saved(tmp_path / "p.png", palette, transparency=0)
    assert read_image(path)[0, 0].tolist() == [10, 20, 30]
    assert np.array_equal(read_ids(path), RAMP > 100)


def test_a_phone_photograph_with_an_extra_picture(tmp_path: Path) -> None:
    """Many phones put a depth or brightness map behind the photograph; that is no animation."""
    first = Image.new("RGB", (8, 6), (250, 0, 0))
    path = saved(tmp_path / "phone.mpo", first, save_all=True, append_images=[Image.new("RGB", (8, 6))]).rename(tmp_path / "phone.jpg")
    assert abs(read_image(path).astype(int) - (250, 0, 0)).max() < 8


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000", "PPM", "TGA", "AVIF"])
def test_damaged_files_are_decoded_or_named(tmp_path: Path, form: str) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    rng = np.random.default_rng(len(form))
    path = tmp_path / f"damaged.{form.lower()}"
    Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(path, form)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    messages = []
    for attempt in range(60):
        damaged = whole[: rng.integers(len(whole))].copy() if attempt % 3 == 0 else whole.copy()
        if len(damaged):
            damaged[rng.integers(0, min(len(damaged), (40, 200, len(damaged))[attempt % 3]), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        for read in (image_size, read_image):
            try:
                assert len(read(path)) > 0
            except DataError as error:
                messages.append(str(error))
    assert messages
    assert all(str(path) in message and "\n" not in message for message in messages)


def test_ids_are_never_luminance(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 10], [11, 3, 2]], np.uint8)
    write_mask(tmp_path / "m.png", ids, CAMVID11)
    assert np.array_equal(read_ids(tmp_path / "m.png"), ids)
    assert Image.open(tmp_path / "m.png").mode == "P"
    assert tuple(read_colours(tmp_path / "m.png")[0, 1]) == CAMVID11.colours[1]


def test_many_classes_stay_16_bit(tmp_path: Path) -> None:
    labels = LabelSet("many", tuple(map(str, range(300))), voc_colours(300), ignore=65535)
    ids = np.array([[0, 299], [256, 65535]])
    write_mask(tmp_path / "m.png", ids, labels)
    assert np.array_equal(read_ids(tmp_path / "m.png"), ids)


def test_colour_mask_must_be_declared(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", Image.new("RGB", (3, 3)))
    with pytest.raises(DataError, match="declare `decode: rgb`"):
        read_ids(path)


def test_hostile_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("hello")
    whole = saved(tmp_path / "whole.jpg", Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)))
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:900])
    saved(tmp_path / "moving.gif", Image.new("L", (4, 4)), save_all=True, append_images=[Image.new("L", (4, 4), 200)])
    for name, message in {
        "none.png": "no such file", "empty.png": "an empty file", "text.jpg": "not a picture", "cut.jpg": "truncated",
        "moving.gif": "animated",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=message) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    side = int(MAX_PIXELS**0.5) + 1
    path = saved(tmp_path / "bomb.png", Image.new("1", (side, side)))
    for read in (read_image, image_size, read_ids):
        with pytest.raises(DataError, match="cut it into tiles"):
            read(path)


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert caught.value.kind == "format" and caught.value.fix
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (np.float32, (-3.2, 1041)), (np.float32, (0, 1)), (np.float32, (0, 255)), (np.int32, (0, 65535)), (np.int32, (-(2**31), 2**31 - 1)),
        (np.int16, (-7, 300)), (np.int8, (-128, 127)), (np.uint32, (0, 2**32 - 1)), (np.uint32, (0, 200)),
    ],
)  # fmt: skip
def test_tiffs_of_other_values_name_kind_and_range(tmp_path: Path, dtype: type, values: tuple[float, float]) -> None:
    pixels = np.linspace(*values, 48).reshape(6, 8).astype(dtype)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(Page(pixels)))
    assert f"{np.dtype(dtype)} values from {pixels.min():.7g} to {pixels.max():.7g}, expected 8 or 16 bits" in refused(path)
    assert image_size(path) == (6, 8)


@pytest.mark.parametrize(("dtype", "bands"), [(np.float64, 1), (np.float32, 3), (np.int16, 3), (np.uint32, 3), (np.float16, 1)])
def test_values_that_pillow_does_not_read_are_named(tmp_path: Path, dtype: type, bands: int) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(Page(np.ones((6, 8, bands), dtype).squeeze())))
    assert f"{np.dtype(dtype)} values, expected 8 or 16 bits" in refused(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=arrays(np.float32, (3, 4), elements=st.floats(width=32)))
@example(values=np.full((3, 4), np.nan, np.float32))
@example(values=np.full((3, 4), np.inf, np.float32))
@example(values=np.full((3, 4), 7, np.float32))
@example(values=np.array([[0, np.nan, -np.inf, 1.5]], np.float32))
def test_whatever_the_floats_are_they_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    """From a file and from memory, with the range of those that are finite."""
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(Page(values)))
    finite = values[np.isfinite(values)]
    found = f"values from {finite.min():.7g} to {finite.max():.7g}" if finite.size else "none of them finite"
    assert found in refused(path)
    with pytest.raises(DataError) as caught:
        from_pil(Image.fromarray(values))
    assert found in str(caught.value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=arrays(np.int32, (3, 4)))
def test_whole_numbers_of_32_bits_are_ids_and_no_picture(tmp_path: Path, values: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(Page(values)))
    assert f"int32 values from {values.min():.7g} to {values.max():.7g}" in refused(path)
    assert np.array_equal(read_ids(path), values)
    with pytest.raises(DataError, match="int32 values"):
        from_pil(Image.fromarray(values))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=arrays(np.float32, (3, 4), elements=st.floats(-(2.0**90), 2.0**90, width=32)))
def test_the_cure_cures(tmp_path: Path, values: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(Page(values)))
    assert "scale them so that 0 is black and 255 white, and save them as 8 bits" in refused(path)
    scaled = np.interp(values, (values.min(), values.max()), (0, 255)).round().astype(np.uint8)
    Image.fromarray(scaled).save(path)
    assert np.array_equal(read_image(path)[..., 0], scaled)


@pytest.mark.parametrize("form", ["PNG", "PPM", "TIFF", "JPEG2000"])
def test_16_bits_stay_16_bits(tmp_path: Path, form: str) -> None:
    wide = RAMP.astype(np.uint16) * 257
    path = tmp_path / "a"
    Image.fromarray(wide).save(path, form)
    assert np.array_equal(read_image(path)[..., 0], RAMP)
    assert np.array_equal(read_ids(path), wide)
    assert read_header(path).notes == ("16-bit", "grey")
    with Image.open(path) as image:
        assert np.array_equal(from_pil(image)[..., 0], RAMP)


@pytest.mark.parametrize("magic", [b"P2", b"P5"])
@pytest.mark.parametrize("top", [300, 1023, 65535])
def test_a_pgm_says_what_is_white(tmp_path: Path, magic: bytes, top: int) -> None:
    values = np.array([[0, top // 2, top]])
    data = b" ".join(str(value).encode() for value in values[0]) if magic == b"P2" else values.astype(">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(magic + b"\n3 1\n" + str(top).encode() + b"\n" + data)
    assert np.abs(read_image(tmp_path / "a.pgm")[..., 0] - values / top * 255).max() < 1


def test_a_pfm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pfm").write_bytes(b"Pf\n2 1\n-1.0\n" + np.array([0.5, 2], "<f4").tobytes())
    assert "float32 values from 0.5 to 2" in refused(tmp_path / "a.pfm")


@pytest.mark.parametrize("alpha", [0, 1, 7, 128, 255])
@pytest.mark.parametrize("bands", [2, 4])
def test_colours_that_were_multiplied_by_alpha(tmp_path: Path, bands: int, alpha: int) -> None:
    """They are what they were before, as far as rounding left it."""
    plain = np.random.default_rng(alpha).integers(0, 256, (6, 8, bands), dtype=np.uint8)
    plain[..., -1] = alpha
    stored = plain.copy()
    stored[..., :-1] = (plain[..., :-1].astype(int) * alpha + 127) // 255
    (tmp_path / "a.tif").write_bytes(tiff_of(Page(stored, {338: short(1)})))
    found = read_image(tmp_path / "a.tif").astype(int)
    if alpha:
        assert np.abs(found - np.broadcast_to(plain[..., :-1], found.shape)).max() <= 255 / alpha
    assert "alpha" in read_header(tmp_path / "a.tif").notes
    if bands == 2 and alpha == 255:
        assert np.array_equal(read_ids(tmp_path / "a.tif"), plain[..., 0])
    elif bands == 2:
        with pytest.raises(DataError) as caught:
            read_ids(tmp_path / "a.tif")
        assert caught.value.kind == "mask-kind"


@pytest.mark.parametrize(("mode", "stored"), [("LA", "La"), ("RGBA", "RGBa")])
def test_pillows_own_images_of_that_kind(mode: str, stored: str) -> None:
    image = Image.new(mode, (3, 2), (64,) * (len(mode) - 1) + (128,))
    assert np.abs(from_pil(image.convert(stored)).astype(int) - 64).max() <= 1


def test_integers_of_a_png_of_older_pillows_are_16_bits() -> None:
    """It opened them as 32 bits."""
    image = Image.fromarray(RAMP.astype(np.int32) * 257)
    image.format = "PNG"
    assert np.array_equal(from_pil(image)[..., 0], RAMP)
