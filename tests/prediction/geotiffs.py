"""GeoTIFFs, and the masks that `RedNet` gives of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio")


def write(path: Path, values: np.ndarray, **options: Any) -> np.ndarray:
    """Bands x H x W as a GeoTIFF in UTM 33, a quarter of a metre a pixel."""
    transform = rasterio.transform.from_origin(500_000, 4_649_776, 0.25, 0.25)
    profile: dict[str, Any] = {"crs": "EPSG:32633", "transform": transform, **options}
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2], dtype=values.dtype, **profile
    ) as file:
        file.write(values)
    return values


def noise(bands: int, height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (bands, height, width), dtype)


def expected(red: np.ndarray) -> np.ndarray:
    return np.where(red < 85, 0, np.where(red <= 170, 1, 2))
