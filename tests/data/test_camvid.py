"""CamVid's lists and drives, and its missing files."""

from pathlib import Path
from typing import Any

import pytest

from seenet.core.errors import DataError, UsageError
from seenet.core.settings import DataSettings
from seenet.data import open_split


@pytest.mark.parametrize(
    ("settings", "which", "keys"),
    [
        ({"kind": "camvid"}, "trainval", ["train/0001TP_1", "train/0016E5_2", "val/0016E5_3"]),
        ({"kind": "camvid-drives", "hold_out": "0001TP"}, "val", ["train/0001TP_1"]),
        (
            {"kind": "camvid-drives", "hold_out": "0001TP"},
            "train",
            ["train/0016E5_2", "val/0016E5_3"],
        ),
    ],
)
def test_lists_and_drives(
    camvid: Path, settings: dict[str, Any], which: str, keys: list[str]
) -> None:
    split = open_split(DataSettings(root=camvid, **settings), which)
    assert [split.key(index) for index in range(len(split))] == keys


def test_missing_files_are_named(camvid: Path) -> None:
    settings = DataSettings(kind="camvid", root=camvid)
    with pytest.raises(UsageError, match="nearest: train"):
        open_split(settings, "trian")
    (camvid / "valannot" / "0016E5_3.png").unlink()
    with pytest.raises(DataError, match="no mask for 0016E5_3"):
        open_split(settings, "val")
