"""Cityscapes: labelIds are read as the 19 trainIds."""

from pathlib import Path

import numpy as np

from seenet.core.errors import DataError, UsageError, nearest
from seenet.core.images import read_ids
from seenet.core.labels import IGNORE, LabelSet
from seenet.core.settings import DataSettings
from seenet.data.split import FileSplit, file_split, need_folder

# Official table of Cityscapes, in the order of trainIds: labelId, name and colour.
_CITYSCAPES = (
    (7, "road", (128, 64, 128)), (8, "sidewalk", (244, 35, 232)), (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)), (13, "fence", (190, 153, 153)), (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)), (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)), (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)), (24, "person", (220, 20, 60)), (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)), (27, "truck", (0, 0, 70)), (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)), (32, "motorcycle", (0, 0, 230)), (33, "bicycle", (119, 11, 32)),
)  # fmt: skip

CITYSCAPES19 = LabelSet(
    "cityscapes19",
    tuple(name for _, name, _ in _CITYSCAPES),
    tuple(colour for _, _, colour in _CITYSCAPES),
)

CITYSCAPES_CATEGORIES = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}
"""Scored classes of each category of the official table, by trainId."""

CITYSCAPES_TRAIN_IDS = {label: train_id for train_id, (label, _, _) in enumerate(_CITYSCAPES)}
"""labelId -> trainId of the 19 scored classes."""

HINT = (
    "expected leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and "
    "gtFine/SPLIT/CITY/*_gtFine_labelIds.png (cityscapes-dataset.com); set data.root"
)
FOLDERS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}
"""Folders that make up each split."""

_TRAIN_IDS = np.full(256, IGNORE, np.uint8)
for _label, _train_id in CITYSCAPES_TRAIN_IDS.items():
    _TRAIN_IDS[_label] = _train_id


def open_cityscapes(settings: DataSettings, which: str) -> FileSplit:
    """Open train, val or trainval, with the mask files that `data.ids` names."""
    if which not in FOLDERS:
        raise UsageError(f"Cityscapes has no split {which} with labels; {nearest(which, FOLDERS)}")
    images, masks = (Path(settings.root or "") / name for name in ("leftImg8bit", "gtFine"))
    need_folder(images, HINT)
    suffix, decode = (
        ("labelIds", decode_label_ids)
        if settings.ids == "labelIds"
        else ("labelTrainIds", read_ids)
    )
    pairs = []
    for part in FOLDERS[which]:
        for image in sorted((images / part).glob("*/*_leftImg8bit.png")):
            key = f"{part}/{image.parent.name}/{image.name.removesuffix('_leftImg8bit.png')}"
            pairs.append((key, image, masks / f"{key}_gtFine_{suffix}.png"))
    return file_split(f"cityscapes/{which}", CITYSCAPES19, pairs, decode, empty=HINT)


def decode_label_ids(path: Path) -> np.ndarray:
    """Read a labelIds file as H x W trainIds; raise DataError for an id of no Cityscapes label."""
    ids = read_ids(path)
    unknown = sorted(set(np.unique(ids).tolist()) - set(range(34)) - {255})
    if unknown:
        pixels = int(np.isin(ids, unknown).sum())
        what = f"{path}: ids {unknown[:8]} ({pixels} pixels) are no Cityscapes labelIds (0 to 33)"
        raise DataError(what, fix="another kind of mask?", kind="ids", pixels=pixels)
    return np.take(_TRAIN_IDS, ids)


def instance_path(mask: Path) -> Path:
    """Return the instanceIds file beside a labelIds or trainIds file; it may be missing."""
    return mask.with_name(mask.name.rpartition("_gtFine_")[0] + "_gtFine_instanceIds.png")


def read_instances(path: Path) -> np.ndarray:
    """Read H x W instanceIds: labelId * 1000 + number for single objects, else the labelId.

    Raises:
        DataError: an id that is neither.
    """
    ids = read_ids(path)
    if ids.size and int(ids.max()) // 1000 >= 34:
        raise DataError(
            f"{path}: id {int(ids.max())} is no Cityscapes instanceId "
            "(labelId 0 to 33, times 1000 plus a number); another kind of mask?"
        )
    return ids
