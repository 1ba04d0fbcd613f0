"""Bands of pictures, whole and by windows, against plain loops; what a model keeps of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.picture_reader import PLAIN, PictureReader
from tests.core.tiffs import Page, long, noise, tiff_of, write_geotiff

RANGES = ((-0.5, 2.0), (0.0, 1.0), (-1.0, 3.0))


def floats() -> np.ndarray:
    """Return H x W x 4 floats from -1 to 3, with some that are none."""
    values = np.random.default_rng(0).uniform(-1, 3, (30, 40, 4)).astype(np.float32)
    values[3, 5:9, 1], values[4, 2:4, 0], values[5, 5, 3] = np.nan, np.inf, -np.inf
    return values


def expected(value: float, low: float, high: float) -> int:
    """Return the byte of a value, as definitions say."""
    if np.isnan(value):
        return 0
    return int(np.floor(min(max((float(value) - low) / (high - low), 0), 1) * 255 + 0.5))


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
@pytest.mark.parametrize("limits", [RANGES, RANGES[0]])
def test_floats_become_bytes_by_their_range(tmp_path: Path, suffix: str, limits: Any) -> None:
    values, path = floats(), tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, values)
    else:
        write_geotiff(path, np.moveaxis(values, 2, 0))
    pixels = PictureReader((4, 1, 2), limits)(path)
    pairs = limits if limits is RANGES else [limits] * 3
    for place, (band, pair) in enumerate(zip((3, 0, 1), pairs, strict=True)):
        slow = [[expected(value, *pair) for value in row] for row in values[..., band]]
        assert pixels[..., place].tolist() == slow


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [(1,), (2, 1), (5, 3, 1, 2)])
def test_windows_and_mirrors_are_parts_of_the_whole(
    tmp_path: Path, dtype: type, channels: tuple[int, ...]
) -> None:
    path = tmp_path / "a.tif"
    write_geotiff(path, noise(5, 50, 70, np.uint16).astype(dtype), interleave="band")
    reader = PictureReader(channels, (0, 40_000) if dtype == np.float32 else None)
    whole = reader(path)
    assert whole.shape == (50, 70, len(channels)) and whole.std() > 20
    assert reader.window_pixels(path) == 50 * 70 and reader.size(path) == (50, 70)
    with reader.opened(path) as picture:
        assert picture.shape == whole.shape
        assert np.array_equal(picture[7:20, 5:66], whole[7:20, 5:66])
        assert np.array_equal(picture[:, ::-1][7:20, 3:25], whole[7:20, ::-1][:, 3:25])
        assert picture.reduced(5, 6).shape == (5, 6, len(channels))


def test_bands_of_8_and_16_bits_need_no_range(tmp_path: Path) -> None:
    deep = noise(4, 20, 30, np.uint16)
    write_geotiff(tmp_path / "a.tif", deep)
    np.save(tmp_path / "a.npy", np.moveaxis(deep, 0, 2))
    both = [PictureReader((4, 2))(tmp_path / name) for name in ("a.tif", "a.npy")]
    assert np.array_equal(*both)
    wanted = np.floor(deep[[3, 1]] / 65535 * 255 + 0.5)
    assert np.array_equal(both[0], np.moveaxis(wanted, 0, 2))
    np.save(tmp_path / "b.npy", floats())
    with pytest.raises(DataError, match="float32 values from"):
        PictureReader((1, 2))(tmp_path / "b.npy")


def test_channels_of_other_formats(tmp_path: Path) -> None:
    pixels = np.moveaxis(noise(4, 20, 30), 0, 2)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(PictureReader((4, 1))(tmp_path / "a.png"), pixels[..., [3, 0]])
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    assert np.array_equal(PictureReader((1,))(tmp_path / "grey.png"), pixels[..., :1])
    content = (tmp_path / "a.png").read_bytes()
    assert np.array_equal(PictureReader((2,)).decode(content, "a"), pixels[..., 1:2])


def test_a_picture_that_lacks_a_band(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "a.tif", noise(2, 8, 8))
    np.save(tmp_path / "a.npy", np.moveaxis(noise(2, 8, 8), 0, 2))
    Image.fromarray(noise(1, 8, 8)[0]).save(tmp_path / "a.png")
    for name in ("a.tif", "a.npy", "a.png"):
        with pytest.raises(
            DataError, match=f"{name}: found . bands?, expected at least 3"
        ) as error:
            PictureReader((1, 3))(tmp_path / name)
        assert error.value.kind == "format"


def test_bad_files_of_bands_are_one_line(tmp_path: Path) -> None:
    reader, path = PictureReader((1, 2)), tmp_path / "a.tif"
    with pytest.raises(DataError, match="no such file"):
        reader(path)
    path.write_bytes(b"II*\0 nothing of use")
    with pytest.raises(DataError, match=r"a\.tif: .*cannot be read"):
        reader(path)
    path.unlink()
    write_geotiff(path, noise(2, 300, 300))
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises(DataError, match=r"a\.tif: ") as error:
        reader(path)
    assert "\n" not in str(error.value)
    page = Page(np.moveaxis(noise(2, 20, 20), 0, 2))
    path.write_bytes(tiff_of(page, page))
    with pytest.raises(DataError, match="several pages"):
        reader(path)
    huge = {256: long(100_000), 257: long(100_000)}
    path.write_bytes(tiff_of(Page(np.moveaxis(noise(2, 20, 20), 0, 2), huge)))
    with pytest.raises(DataError):
        reader(path)


NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
PAIRS = st.tuples(NUMBERS, NUMBERS)


@given(st.lists(st.integers(1, 300), max_size=6), st.data())
def test_what_a_model_keeps_is_read_again(channels: list[int], data: st.DataObject) -> None:
    several = st.tuples(*[PAIRS] * len(channels)) if channels else PAIRS
    limits = data.draw(st.none() | PAIRS | several)
    reader = PictureReader(tuple(channels) or None, limits)
    assert PictureReader.from_json(json.loads(json.dumps(reader.as_json()))) == reader


def test_files_that_keep_nothing_are_plain(tmp_path: Path) -> None:
    assert PLAIN.as_json() == {} and PictureReader.from_json(None) == PLAIN
    (tmp_path / "a.safetensors").write_bytes(b"no model")
    assert PictureReader.of_model(tmp_path / "a.safetensors") == PLAIN
    assert PictureReader.of_model(tmp_path / "none.safetensors") == PLAIN
