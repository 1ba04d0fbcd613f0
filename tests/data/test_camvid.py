"""CamVid's lists and drives, and what is said where files are not."""

from pathlib import Path

import pytest

from seenet.core.errors import DataError, UsageError
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.camvid import CAMVID11


def test_camvid_lists_and_drives(camvid: Path) -> None:
    def keys(**settings: object) -> list[str]:
        which = str(settings.pop("which"))
        split = open_split(DataSettings(root=camvid, **settings), which)  # type: ignore[arg-type]
        return [split.key(index) for index in range(len(split))]

    assert keys(kind="camvid", which="trainval") == ["train/0001TP_1", "train/0016E5_2", "val/0016E5_3"]
    assert keys(kind="camvid-drives", hold_out="0001TP", which="val") == ["train/0001TP_1"]
    assert keys(kind="camvid-drives", hold_out="0001TP", which="train") == ["train/0016E5_2", "val/0016E5_3"]


def test_bad_camvid(camvid: Path) -> None:
    with pytest.raises(UsageError, match="nearest: train"):
        open_split(DataSettings(kind="camvid", root=camvid), "trian")
    (camvid / "valannot" / "0016E5_3.png").unlink()
    with pytest.raises(DataError, match="no mask for 0016E5_3"):
        open_split(DataSettings(kind="camvid", root=camvid), "val")
    (camvid / "val.txt").write_text("\n")
    with pytest.raises(DataError, match="no pictures found"):
        open_split(DataSettings(kind="camvid", root=camvid), "val")
    with pytest.raises(DataError, match="SegNet"):
        open_split(DataSettings(kind="camvid", root=camvid / "elsewhere"), "val")


def test_camvid_labels() -> None:
    assert CAMVID11.palette()[3].tolist() == [128, 64, 128]
