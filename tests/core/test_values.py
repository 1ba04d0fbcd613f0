"""Values without a scale are refused, whoever asks; 8 and 16 bits are read as ever."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.images import from_pil, image_size, read_header, read_ids, read_image
from tests.core.tiffs import Page, short, tiff_of

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


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
