"""What is said of ids, sizes and damaged files, and what is remembered."""

from pathlib import Path

import numpy as np
import pytest

from seenet.core.errors import DataError
from seenet.core.labels import LabelSet
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.check import check_ids, check_split
from seenet.data.split import FileSplit
from seenet.data.stats import split_stats
from tests.data.pictures import picture


def test_check_names_ids_pixels_and_cause(camvid: Path) -> None:
    split = open_split(DataSettings(kind="camvid", root=camvid), "train")
    check_split(split)
    check_split(split)  # remembered
    mask = np.zeros((6, 8), np.uint8)
    mask[0, :3] = 255
    picture(camvid / "trainannot" / "0001TP_1.png", mask)
    with pytest.raises(DataError, match=r"0001TP_1\.png: ids 255 \(3 pixels\).*masks of camvid11 hold no others"):
        check_split(split)
    picture(camvid / "trainannot" / "0001TP_1.png", np.zeros((5, 8), np.uint8))
    with pytest.raises(DataError, match="5 x 8 pixels, but its picture"):
        check_split(split)


@pytest.mark.parametrize(
    ("ids", "classes", "ignore", "cause"),
    [
        ([0, 255], 2, 254, "looks like a 0/255 mask"),
        ([1, 2, 3], 3, 255, "looks like ids counted from 1, or void as 3"),
        ([0, 1, 4, 255], 3, 254, "looks like void as 255"),
        ([7, 33, 255], 19, 255, "looks like Cityscapes' labelIds"),
        ([0, 9], 3, 255, "add the classes"),
    ],
)
def test_causes_in_a_folder_of_ones_own(ids: list[int], classes: int, ignore: int, cause: str) -> None:
    names = tuple(map(str, range(classes)))
    with pytest.raises(DataError, match=cause):
        check_ids(np.array([ids]), LabelSet("folder", names, tuple((index, 0, 0) for index in range(classes)), ignore), Path("a.png"))


def test_check_decodes_pictures_and_survives_its_own_cache(camvid: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    split = open_split(DataSettings(kind="camvid", root=camvid), "val")
    check_split(split)
    (store,) = (tmp_path / "cache" / "seenet").iterdir()
    store.write_text("{broken")
    check_split(split)
    path = camvid / "val" / "0016E5_3.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"0016E5_3\.png: .*truncated"):
        check_split(split)


@pytest.mark.parametrize("text", ["", "[1, 2]", '["a stamp of the first format"]', '{"a stamp": 3}', '{"a stamp": {"road": 1}}'])
def test_cache_of_another_format_counts_as_empty(camvid: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    split = open_split(DataSettings(kind="camvid", root=camvid), "train")
    assert isinstance(split, FileSplit)
    counts = check_split(split)
    assert counts == [{0: 48}, {11: 48}]
    (store,) = (tmp_path / "cache" / "seenet").iterdir()
    store.write_text(text)
    assert check_split(split) == counts


def test_check_says_labelids(tmp_path: Path) -> None:
    root = tmp_path / "cityscapes"
    picture(root / "leftImg8bit" / "val" / "ulm" / "ulm_1_leftImg8bit.png")
    picture(root / "gtFine" / "val" / "ulm" / "ulm_1_gtFine_labelTrainIds.png", np.full((6, 8), 26, np.uint8))
    split = open_split(DataSettings(kind="cityscapes", root=root, ids="trainIds"), "val")
    with pytest.raises(DataError, match=r"ids 26 \(48 pixels\).*looks like labelIds; set data.ids=labelIds"):
        check_split(split)
    with pytest.raises(DataError, match=r"ids 26 \(48 pixels\)"):
        split_stats(split)
