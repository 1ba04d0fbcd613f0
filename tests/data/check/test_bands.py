"""What is proposed for pictures of bands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from seenet.data.check.bands import bands_of, propose_bands
from seenet.data.description import FolderDescription
from tests.core.tiffs import noise, write_geotiff
from tests.data.bands import scaled


def write(folder: Path, bands: np.ndarray, suffix: str, count: int = 3, **options: Any) -> list:
    """Write B x H x W values as `count` pictures; return their paths."""
    paths = [folder / f"{number}{suffix}" for number in range(count)]
    for path in paths:
        if suffix == ".npy":
            np.save(path, np.moveaxis(bands, 0, 2))
        else:
            write_geotiff(path, bands, **options)
    return paths


def proposed(paths: list[Path]) -> FolderDescription:
    lines = propose_bands(paths)
    return FolderDescription(
        decode="index", classes=["a"], **yaml.safe_load("\n".join(lines)) or {}
    )


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("count", [2, 5])
def test_bands(tmp_path: Path, suffix: str, dtype: str, count: int) -> None:
    bands = scaled(noise(count, 60, 300), dtype)
    about = proposed(write(tmp_path, bands, suffix))
    assert about.channels == tuple(range(1, count + 1))
    if dtype == "uint8":
        assert about.value_range is None
    else:
        found, wanted = np.array(about.value_range), np.percentile(bands, (0.5, 99.5), axis=(1, 2))
        assert np.abs(found - wanted.T).max() < 0.02 * np.ptp(bands)
    # Noise of all bytes: its mean is a half, its deviation that of equal probabilities.
    assert about.mean and about.std
    assert np.allclose(about.mean, 0.5, atol=0.02)
    assert np.allclose(about.std, 12**-0.5, atol=0.02)


def test_values_for_none_do_not_count(tmp_path: Path) -> None:
    bands = scaled(noise(4, 60, 80), "float32")
    bands[:, :30] = -9999
    about = proposed(write(tmp_path, bands, ".tif", nodata=-9999))
    assert np.array(about.value_range).min() > -1.1
    constant = np.full((2, 8, 8), 7, np.uint16)
    assert proposed(write(tmp_path, constant, ".npy")).value_range == ((7, 8), (7, 8))


def test_plain_pictures_need_nothing(tmp_path: Path) -> None:
    Image.fromarray(np.moveaxis(noise(3, 20, 20), 0, 2)).save(tmp_path / "a.png")
    colours = write(tmp_path, noise(3, 20, 20), ".tif", photometric="RGB")
    with_alpha = tmp_path / "alpha.tif"
    write_geotiff(with_alpha, noise(4, 20, 20), photometric="RGB", alpha="YES")
    # The fourth of the next is no alpha, as far as the file says.
    write_geotiff(tmp_path / "extra.tif", noise(4, 20, 20), photometric="RGB", alpha="UNSPECIFIED")
    assert proposed([tmp_path / "extra.tif"]).channels == (1, 2, 3, 4)
    arrays = write(tmp_path, noise(3, 20, 20), ".npy")
    for paths in ([tmp_path / "a.png"], colours, [with_alpha], arrays):
        assert propose_bands(paths) == []
        assert bands_of(paths[0]) is None
    # One that is plain among others that are not: they are no series, which `data check` reports.
    mixed = write(tmp_path, noise(5, 20, 20), ".npy")
    assert propose_bands([*mixed, tmp_path / "a.png"]) == []


def test_colours_of_16_bits(tmp_path: Path) -> None:
    dark = write(tmp_path, noise(3, 60, 80, np.uint16) >> 4, ".tif", photometric="RGB")
    about = proposed(dark)
    assert about.channels == (1, 2, 3) and np.array(about.value_range).max() < 4096
    assert about.mean is None
    bright = write(tmp_path, noise(3, 60, 80, np.uint16), ".tif", photometric="RGB")
    assert propose_bands(bright) == []
