"""Counts of a split, and the class weights that follow."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seenet.core.images import read_ids
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.check.scan import split_stats
from seenet.data.split import FileSplit
from tests.data.pictures import picture


def test_counts_are_remembered(camvid: Path) -> None:
    decoded = []

    def decode(path: Path) -> np.ndarray:
        decoded.append(path.stem)
        return read_ids(path)

    opened = open_split(DataSettings(kind="camvid", root=camvid), "train")
    assert isinstance(opened, FileSplit)
    split = replace(opened, decode=decode)
    first = split_stats(split)
    assert sorted(decoded) == ["0001TP_1", "0016E5_2"]
    again = split_stats(split)
    assert len(decoded) == 2
    assert (again.table(), again.holding_pixels.tolist()) == (first.table(), first.holding_pixels.tolist())
    picture(camvid / "trainannot" / "0001TP_1.png", np.full((6, 8), 4, np.uint8))
    assert split_stats(split).pixels[4] == 48
    assert decoded[2:] == ["0001TP_1"]


def test_stats_by_hand(camvid: Path) -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[:2], mask[5] = 3, 11
    picture(camvid / "trainannot" / "0001TP_1.png", mask)
    stats = split_stats(open_split(DataSettings(kind="camvid", root=camvid), "train"))
    assert (stats.pixels[0], stats.pixels[3], stats.void) == (24, 16, 8 + 48)
    assert (stats.images[0], stats.images[3], stats.sizes) == (1, 1, {(6, 8): 2})
    # Frequencies 24/48 and 16/48, void in the denominator; their median is 20/48.
    assert [stats.median_frequency()[index] for index in (0, 3, 5)] == pytest.approx([20 / 24, 20 / 16, 0])


def test_camvid_weights_are_the_published_ones(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "CamVid"
    root = tmp_path / "camvid"
    (root / "train").mkdir(parents=True)
    (root / "trainannot").symlink_to(source / "trainannot")
    for name in (source / "train.txt").read_text().split():
        (root / "train" / f"{name}.png").symlink_to(source / "train" / f"{name}.webp")
    (root / "train.txt").symlink_to(source / "train.txt")
    stats = split_stats(open_split(DataSettings(kind="camvid", root=root), "train"))
    expected = [0.279, 0.202, 4.787, 0.149, 1.000, 0.422, 3.847, 1.974, 0.789, 6.375, 8.859]
    assert [round(weight, 3) for weight in stats.median_frequency()] == expected
    assert "Bicyclist" in stats.table()
