"""Write small data sets for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, mask: np.ndarray | None = None) -> None:
    """Write a mask, or an image of 6 x 8 random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if mask is None:
        rng = np.random.default_rng(len(path.name))
        mask = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(mask).save(path)


def pairs(
    folder: Path,
    *names: str,
    mask: np.ndarray | None = None,
    images: str = "images",
    masks: str = "masks",
    suffix: str = "",
) -> None:
    """Write pairs of an image and a mask; by default its quarters are 0, 1, 2 and 255."""
    if mask is None:
        mask = np.array([[0, 1], [2, 255]], np.uint8).repeat(3, 0).repeat(4, 1)
    for name in names:
        picture(folder / images / f"{name}.jpg")
        picture(folder / masks / f"{name}{suffix}.png", mask)
