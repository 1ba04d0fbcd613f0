"""Cityscapes' table, splits and masks."""

from pathlib import Path

import numpy as np
import pytest

from seenet.core.errors import UsageError
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.check.scan import check_split
from seenet.data.cityscapes import CITYSCAPES19, CITYSCAPES_TRAIN_IDS
from tests.data.pictures import picture


def test_the_table_is_the_official_one() -> None:
    official = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    scored = sorted(
        (label for label in official if 0 <= label.trainId < 255), key=lambda x: x.trainId
    )
    assert {label.id: label.trainId for label in scored} == CITYSCAPES_TRAIN_IDS
    assert tuple(label.name for label in scored) == CITYSCAPES19.classes
    assert tuple(label.color for label in scored) == CITYSCAPES19.colours


def test_both_kinds_of_masks_agree(shared: Path) -> None:
    root = shared / "data" / "cityscapes"
    part = next((root / "leftImg8bit").iterdir()).name
    from_labels = open_split(DataSettings(kind="cityscapes", root=root), part)
    from_train_ids = open_split(DataSettings(kind="cityscapes", root=root, ids="trainIds"), part)
    # The two files were downscaled separately, so that a few pixels at edges differ.
    assert (from_labels.read(0)[1] == from_train_ids.read(0)[1]).mean() > 0.995


def test_splits(tmp_path: Path) -> None:
    for part, city in (("train", "ulm"), ("train", "aachen"), ("val", "lindau")):
        picture(tmp_path / "leftImg8bit" / part / city / f"{city}_1_leftImg8bit.png")
        mask = tmp_path / "gtFine" / part / city / f"{city}_1_gtFine_labelIds.png"
        picture(mask, np.full((6, 8), 7 if city == "ulm" else 33, np.uint8))
    settings = DataSettings(kind="cityscapes", root=tmp_path)
    split = open_split(settings, "trainval")
    assert [(split.key(index), int(split.read(index)[1][0, 0])) for index in range(3)] == [
        ("train/aachen/aachen_1", 18),
        ("train/ulm/ulm_1", 0),
        ("val/lindau/lindau_1", 18),
    ]
    check_split(split)
    with pytest.raises(UsageError, match="no split test with labels"):
        open_split(settings, "test")
