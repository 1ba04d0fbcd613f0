"""Pascal VOC 2012, alone or with the extra masks of `trainaug`, which are made here.

trainaug has 10,582 pictures: SBD train + SBD val + VOC 2012 train, without VOC 2012 val (SBD:
Semantic Boundaries Dataset, Hariharan et al., ICCV 2011). A picture with an official mask in
SegmentationClass keeps it; the others get theirs from SBD's dataset/cls/NAME.mat, as palette PNGs
in SegmentationClassAug.
"""

import logging
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seenet.core.errors import DataError
from seenet.core.files import write_text
from seenet.core.images import image_size, read_ids, write_mask
from seenet.core.labels import LabelSet, voc_colours
from seenet.core.progress import track
from seenet.core.settings import DataSettings
from seenet.data.split import FileSplit, file_split, need_folder, read_list

_log = logging.getLogger("seenet")

VOC21 = LabelSet(
    "voc21",
    (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
        "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
        "train", "tvmonitor",
    ),
    voc_colours(21),
    rim=True,
)  # fmt: skip

HINT = (
    "expected VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation} under data.root (VOCtrainval_11-May-2012.tar from the "
    "Pascal VOC site); trainaug also needs its list and SegmentationClassAug (`seenet data build-trainaug`)"
)
OFFICIAL = 10_582
SBD_HINT = "expected dataset/{cls/NAME.mat,train.txt,val.txt} of SBD (benchmark.tgz: folder benchmark_RELEASE)"

# What SciPy raises besides its own error over files that are cut, damaged or of another kind
# (NotImplementedError: MATLAB 7.3).
_BROKEN = (OSError, ValueError, TypeError, LookupError, NotImplementedError, EOFError, zlib.error, MemoryError)


def open_voc(settings: DataSettings, which: str) -> FileSplit:
    """Open lists of ImageSets/Segmentation, each picture once.

    `which`: a name (train, val, trainval, trainaug), the path of a list file, or several: `A+B`.
    `trainval` is the official one, 2,913 pictures; `trainaug+val` has 10,582 + 1,449. Masks are the
    official ones (SegmentationClass) where they exist, else SegmentationClassAug's.
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
    """Find VOC2012 in `root`, or `root` itself; raise DataError where neither holds JPEGImages."""
    need_folder(root, HINT)
    home = root / "VOC2012" if (root / "VOC2012").is_dir() else root
    if not (home / "JPEGImages").is_dir():
        raise DataError(f"{home}: no folder JPEGImages in it; {HINT}")
    return home


@dataclass(frozen=True)
class TrainaugReport:
    """What `build_trainaug` found and did, in pictures.

    `official`: with VOC's own mask; `written`: now; `there`: already.
    """

    path: Path
    total: int
    official: int
    written: int
    there: int


def build_trainaug(sbd: Path, voc: Path, *, overwrite: bool = False) -> TrainaugReport:
    """Write the masks of trainaug and, when all are there, its list.

    They are VOC2012/SegmentationClassAug/NAME.png and VOC2012/ImageSets/Segmentation/trainaug.txt.
    Interrupted and called again it does what is missing; what is there and says the same stays.

    Args:
        sbd: SBD's folder benchmark_RELEASE, or the `dataset` in it.
        voc: the folder that holds VOC2012, or VOC2012 itself.
        overwrite: replace masks and a list that are there and say something else.

    Raises:
        DataError: a list, picture or .mat that is missing or damaged, a mask of another size than
            its picture or with ids outside 0 to 20, a file in the way.
    """
    home, source = voc_home(voc), _sbd_home(sbd)
    lists = home / "ImageSets" / "Segmentation"
    names = trainaug_names(
        sbd=[*_names(source / "train.txt", SBD_HINT), *_names(source / "val.txt", SBD_HINT)],
        voc_train=_names(lists / "train.txt", HINT),
        voc_val=_names(lists / "val.txt", HINT),
    )
    if len(names) != OFFICIAL:
        _log.warning("trainaug: %d pictures, expected %d: the lists of SBD or VOC are not the whole published ones", len(names), OFFICIAL)
    todo = [name for name in names if not (home / "SegmentationClass" / f"{name}.png").is_file()]
    _check_present(todo, names, home, source)
    path = lists / "trainaug.txt"
    differ = sorted(set(_names(path, HINT)) ^ set(names)) if path.is_file() else names
    if path.is_file() and differ and not overwrite:
        raise DataError(f"{path}: exists already and differs in {len(differ)} names ({differ[0]}, ...); move it away or use --overwrite")
    written = 0
    try:
        for name in track(todo, "trainaug", len(todo)):
            written += _write_sbd_mask(name, home, source, overwrite=overwrite)
        # Last, so that the list means that every mask of it is there.
        if differ:
            write_text(path, "".join(f"{name}\n" for name in names))
    except OSError as error:
        raise DataError(f"{home}: cannot be written ({error.strerror or error}); make room and call it again, it goes on") from None
    return TrainaugReport(path, len(names), len(names) - len(todo), written, len(todo) - written)


def trainaug_names(sbd: list[str], voc_train: list[str], voc_val: list[str]) -> list[str]:
    """Combine the lists: (SBD + VOC train) without VOC val, sorted, each name once.

    Raises:
        DataError: a name that is none (a path, say).
    """
    names = sorted({*sbd, *voc_train} - set(voc_val))
    for name in names:
        if not name.replace("_", "").isalnum():
            raise DataError(f"{name}: no name of a picture, expected one such as 2008_000002 a line in the lists of SBD and VOC")
    return names


def read_sbd_mask(path: Path) -> np.ndarray:
    """Read GTcls.Segmentation of an SBD .mat: H x W uint8, class ids 0 to 20.

    Raises:
        DataError: anything else.
    """
    # Here, since SciPy takes long to import and reading VOC does not need it.
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        mask = np.asarray(loadmat(path, variable_names=["GTcls"])["GTcls"][0, 0]["Segmentation"])
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {SBD_HINT}") from None
    except (MatReadError, *_BROKEN) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{path}: no GTcls.Segmentation can be read ({reason}); expected a .mat of SBD's cls folder, copy it again"
        ) from None
    if mask.ndim != 2 or mask.size == 0 or not np.issubdtype(mask.dtype, np.integer):
        shape = " x ".join(map(str, mask.shape))
        raise DataError(f"{path}: GTcls.Segmentation is {mask.dtype} of shape {shape}, expected integers of height x width")
    wrong = (mask < 0) | (mask >= VOC21.num_classes)
    if wrong.any():
        raise DataError(f"{path}: id {mask[wrong][0]} ({int(wrong.sum())} pixels outside 0 to 20); expected VOC's classes, copy it again")
    return mask.astype(np.uint8)


def _write_sbd_mask(name: str, home: Path, source: Path, *, overwrite: bool) -> bool:
    """Write a picture's mask; return False where it is there already."""
    mask = read_sbd_mask(source / "cls" / f"{name}.mat")
    picture = home / "JPEGImages" / f"{name}.jpg"
    size = image_size(picture)
    if mask.shape != size:
        raise DataError(
            f"{source / 'cls' / name}.mat: {mask.shape[0]} x {mask.shape[1]} pixels, but {picture} has {size[0]} x {size[1]}; "
            "the two are of different releases"
        )
    path = home / "SegmentationClassAug" / f"{name}.png"
    if path.exists() and not overwrite:
        if not np.array_equal(read_ids(path), mask):
            raise DataError(f"{path}: exists already and differs from SBD's mask; move it away or use --overwrite")
        return False
    write_mask(path, mask, VOC21)
    return True


def _sbd_home(root: Path) -> Path:
    need_folder(root, SBD_HINT)
    home = root / "dataset" if (root / "dataset").is_dir() else root
    need_folder(home / "cls", SBD_HINT)
    return home


def _check_present(todo: list[str], names: list[str], home: Path, source: Path) -> None:
    """Raise DataError for whatever is missing, before the first file is written."""
    for name in todo:
        if not (source / "cls" / f"{name}.mat").is_file():
            raise DataError(f"{source / 'cls' / name}.mat: no such file, and {name} has no official mask either; {SBD_HINT}")
    for name in names:
        if not (home / "JPEGImages" / f"{name}.jpg").is_file():
            raise DataError(f"{home / 'JPEGImages' / name}.jpg: no such picture, though trainaug lists it; {HINT}")


def _names(path: Path, hint: str) -> list[str]:
    # Some circulating lists hold the paths of picture and mask instead of names.
    return [Path(line.split()[0]).stem for line in read_list(path, hint)]
