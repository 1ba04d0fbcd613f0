"""The one decoder: every mode to the right values, and everything hostile to one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from seenet.core.errors import DataError
from seenet.core.images import MAX_PIXELS, image_size, read_colours, read_ids, read_image, write_mask
from seenet.core.labels import CAMVID11, LabelSet, voc_colours

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
