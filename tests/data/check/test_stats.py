"""Counts of a split, and the class weights that follow."""

from pathlib import Path

import numpy as np
import pytest

from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.check.scan import split_stats
from tests.data.pictures import picture


def test_stats_by_hand(camvid: Path) -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[:2], mask[5] = 3, 11
    picture(camvid / "trainannot" / "0001TP_1.png", mask)
    stats = split_stats(open_split(DataSettings(kind="camvid", root=camvid), "train"))
    assert (stats.pixels[0], stats.pixels[3], stats.void) == (24, 16, 8 + 48)
    assert (stats.images[0], stats.images[3], stats.sizes) == (1, 1, {(6, 8): 2})
    # Frequencies 24/48 and 16/48, void in the denominator; their median is 20/48.
    weights = [stats.median_frequency()[index] for index in (0, 3, 5)]
    assert weights == pytest.approx([20 / 24, 20 / 16, 0])


def test_camvid_weights_are_the_published_ones(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "CamVid"
    (tmp_path / "train").mkdir()
    for name in (source / "train.txt").read_text().split():
        (tmp_path / "train" / f"{name}.png").symlink_to(source / "train" / f"{name}.webp")
    for name in ("trainannot", "train.txt"):
        (tmp_path / name).symlink_to(source / name)
    stats = split_stats(open_split(DataSettings(kind="camvid", root=tmp_path), "train"))
    expected = [0.279, 0.202, 4.787, 0.149, 1.000, 0.422, 3.847, 1.974, 0.789, 6.375, 8.859]
    assert [round(weight, 3) for weight in stats.median_frequency()] == expected
