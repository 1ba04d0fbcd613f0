"""Data sets that several tests look at."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import picture


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    for part, frames in {"train": ["0001TP_1", "0016E5_2"], "val": ["0016E5_3"]}.items():
        for frame in frames:
            picture(tmp_path / part / f"{frame}.png")
            picture(tmp_path / f"{part}annot" / f"{frame}.png", np.full((6, 8), 11, np.uint8) * (frame[-1] == "2"))
        (tmp_path / f"{part}.txt").write_text(
            "".join(f"/SegNet/CamVid/{part}/{f}.png /SegNet/CamVid/{part}annot/{f}.png\n" for f in frames)
        )
    return tmp_path


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """Twenty pairs of 6 x 8 pixels with ids 0, 1, 2 and 255, not described."""
    for number in range(20):
        picture(tmp_path / "images" / f"p{number:02d}.jpg")
        picture(tmp_path / "masks" / f"p{number:02d}.png", np.array([[0, 1], [2, 255]], np.uint8).repeat(3, 0).repeat(4, 1))
    return tmp_path
