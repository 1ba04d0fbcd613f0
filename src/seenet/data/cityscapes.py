"""Cityscapes: labelIds become trainIds on the fly."""

from pathlib import Path

import numpy as np

from seenet.core.errors import DataError, UsageError, nearest
from seenet.core.images import read_ids
from seenet.core.labels import CITYSCAPES19, CITYSCAPES_TRAIN_IDS, IGNORE
from seenet.core.settings import DataSettings
from seenet.data.split import FileSplit, file_split, need_folder

HINT = (
    "expected leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png (cityscapes-dataset.com); set data.root"
)
PARTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}

_TABLE = np.full(256, IGNORE, np.uint8)
for _label, _train_id in CITYSCAPES_TRAIN_IDS.items():
    _TABLE[_label] = _train_id


def open_cityscapes(settings: DataSettings, which: str) -> FileSplit:
    """train, val or trainval, from labelIds files or, where `data.ids` says so, trainIds files."""
    if which not in PARTS:
        raise UsageError(f"Cityscapes has no split {which} with labels; {nearest(which, PARTS)}")
    root = Path(settings.root or "")
    need_folder(root / "leftImg8bit", HINT)
    suffix, decode = ("labelIds", decode_label_ids) if settings.ids == "labelIds" else ("labelTrainIds", read_ids)
    pairs = []
    for part in PARTS[which]:
        for image in sorted((root / "leftImg8bit" / part).glob("*/*_leftImg8bit.png")):
            stem = image.name.removesuffix("_leftImg8bit.png")
            mask = root / "gtFine" / part / image.parent.name / f"{stem}_gtFine_{suffix}.png"
            pairs.append((f"{part}/{image.parent.name}/{stem}", image, mask))
    return file_split(f"cityscapes/{which}", CITYSCAPES19, pairs, decode, empty=HINT)


def decode_label_ids(path: Path) -> np.ndarray:
    """trainIds of a labelIds file; DataError for ids that the official table does not have."""
    ids = read_ids(path)
    unknown = sorted(set(np.unique(ids).tolist()) - set(range(34)) - {255})
    if unknown:
        pixels = int(np.isin(ids, unknown).sum())
        what = f"{path}: ids {unknown[:8]} ({pixels} pixels) are no Cityscapes labelIds (0 to 33)"
        raise DataError(what, fix="another kind of mask?", kind="ids", pixels=pixels)
    return np.take(_TABLE, ids)


def instance_path(mask: Path) -> Path:
    """The instanceIds file that belongs to a labelIds or trainIds file; it need not be there."""
    return mask.with_name(mask.name.rpartition("_gtFine_")[0] + "_gtFine_instanceIds.png")


def read_instances(path: Path) -> np.ndarray:
    """H x W instanceIds: labelId * 1000 + number for single objects, the labelId alone elsewhere; DataError for others."""
    ids = read_ids(path)
    if ids.size and int(ids.max()) // 1000 >= 34:
        raise DataError(
            f"{path}: id {int(ids.max())} is no Cityscapes instanceId (labelId 0 to 33, times 1000 plus a number); another kind of mask?"
        )
    return ids
