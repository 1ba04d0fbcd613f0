"""Data sets that several tests use."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import pairs, picture


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Two frames for training, of class 0 and of void, and one for validation, of class 0."""
    for part, frame, value in (
        ("train", "0001TP_1", 0),
        ("train", "0016E5_2", 11),
        ("val", "0016E5_3", 0),
    ):
        picture(tmp_path / part / f"{frame}.png")
        picture(tmp_path / f"{part}annot" / f"{frame}.png", np.full((6, 8), value, np.uint8))
        with (tmp_path / f"{part}.txt").open("a") as file:
            file.write(f"/SegNet/{part}/{frame}.png /SegNet/{part}annot/{frame}.png\n")
    return tmp_path


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """Twenty pairs of 6 x 8 pixels with ids 0, 1, 2 and 255, not described."""
    pairs(tmp_path, *(f"p{number:02d}" for number in range(20)))
    return tmp_path
