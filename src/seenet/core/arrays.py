"""Read .npy files, and scale values of a known range to 8 bits."""

from pathlib import Path

import numpy as np

from seenet.core.errors import DataError
from seenet.core.image_files import SCALE


def no_range(name: str, kind: str, limits: tuple[float, float] | None) -> DataError:
    """Return the error for values whose black and white are unknown.

    Args:
        name: of the image.
        kind: type of the values.
        limits: smallest and largest finite value; None if no value is finite.
    """
    found = f" from {limits[0]:.7g} to {limits[1]:.7g}" if limits else ", none of them finite"
    what = f"{name}: {kind} values{found}, expected 8 or 16 bits"
    return DataError(what, fix=SCALE, kind="format")


def finite_limits(values: np.ndarray) -> tuple[float, float] | None:
    """Return the smallest and largest finite value; None without a finite one."""
    finite = values[np.isfinite(values)]
    return (finite.min(), finite.max()) if finite.size else None


def scaled(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Scale values to uint8, the range to 0..255; clip those outside, NaN becomes 0."""
    low, high = value_range
    shares = np.nan_to_num((values - low) / (high - low), nan=0.0)
    return (shares.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def read_array(path: Path, *, mapped: bool = False) -> np.ndarray:
    """Read a NumPy array from a .npy file; `mapped`: without reading its values yet.

    Raises:
        DataError: missing, or no plain array of numbers of 2 or 3 dimensions.
    """
    try:
        found: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected an array", kind="missing") from None
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{path}: no NumPy array ({reason})",
            fix="copy it again; save it by np.save, without objects",
            kind="damaged",
        ) from None
    if found.ndim not in {2, 3} or found.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: an array of shape {found.shape} and type {found.dtype}, "
            "expected H x W or H x W x C numbers",
            fix="save it in that form",
            kind="format",
        )
    return found


def picture_from_array(path: Path, value_range: tuple[float, float] | None) -> np.ndarray:
    """Read a picture of one or three bands from a .npy file as H x W x 3 uint8.

    Raises:
        DataError: other bands, or values that are not uint8 and have no range.
    """
    values = read_array(path)
    bands = 1 if values.ndim == 2 else values.shape[2]
    if bands not in {1, 3}:
        raise DataError(
            f"{path}: an array of {bands} bands, expected 1 or 3",
            fix="name those to take: `channels: [1, 2, 3]` in seenet.yaml",
            kind="format",
        )
    if value_range is not None:
        values = scaled(values.astype(np.float64), value_range)
    elif values.dtype != np.uint8:
        raise no_range(str(path), str(values.dtype), finite_limits(values))
    return np.repeat(values.reshape(*values.shape[:2], bands), 3 // bands, axis=2)
