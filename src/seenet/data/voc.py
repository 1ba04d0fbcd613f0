"""Pascal VOC 2012, alone or with the extra masks of `trainaug`."""

from pathlib import Path

from seenet.core.errors import DataError
from seenet.core.images import read_ids
from seenet.core.labels import VOC21
from seenet.core.settings import DataSettings
from seenet.data.split import FileSplit, file_split, need_folder, read_list

HINT = (
    "expected VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation} under data.root (VOCtrainval_11-May-2012.tar from the "
    "Pascal VOC site); trainaug also needs its list and SegmentationClassAug (`seenet data build-trainaug`)"
)


def open_voc(settings: DataSettings, which: str) -> FileSplit:
    """Lists of ImageSets/Segmentation by name (train, val, trainval, trainaug) or by the path of a file; `A+B` is both, each picture once.

    `trainval` is the official one, 2,913 pictures; `trainaug+val` has 10,582 + 1,449. Official masks (SegmentationClass) where they exist,
    else SegmentationClassAug's.
    """
    home = voc_home(Path(settings.root or ""))
    lists = [
        Path(part) if part.endswith(".txt") else home / "ImageSets" / "Segmentation" / f"{part}.txt"
        for part in ([which] if Path(which).is_file() else which.split("+"))
    ]
    pairs = []
    for name in dict.fromkeys(Path(line.split()[0]).stem for path in lists for line in read_list(path, HINT)):
        official = home / "SegmentationClass" / f"{name}.png"
        extra = home / "SegmentationClassAug" / f"{name}.png"
        pairs.append((name, home / "JPEGImages" / f"{name}.jpg", extra if extra.is_file() and not official.is_file() else official))
    return file_split(f"voc/{'+'.join(path.stem for path in lists)}", VOC21, pairs, read_ids, empty=HINT)


def voc_home(root: Path) -> Path:
    """VOC2012 in `root`, or `root` itself; DataError where neither holds JPEGImages."""
    need_folder(root, HINT)
    home = root / "VOC2012" if (root / "VOC2012").is_dir() else root
    if not (home / "JPEGImages").is_dir():
        raise DataError(f"{home}: no folder JPEGImages in it; {HINT}")
    return home
