"""Pascal VOC 2012, and the extra masks of its split `trainaug`.

trainaug has 10,582 images: SBD train + SBD val + VOC 2012 train, without VOC 2012 val (SBD:
Semantic Boundaries Dataset, Hariharan et al., ICCV 2011). Images with an official mask in
SegmentationClass keep it. The masks of the others are converted from SBD's dataset/cls/NAME.mat to
palette PNGs in SegmentationClassAug.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seenet.core.errors import DataError
from seenet.core.files import write_text, writing_to
from seenet.core.images import image_size, read_ids, write_mask
from seenet.core.labels import LabelSet, voc_colours
from seenet.core.progress import track
from seenet.core.settings import DataSettings
from seenet.data.split import FileSplit, file_split, need_folder, read_list

VOC21 = LabelSet(
    "voc21",
    (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat",
        "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant",
        "sheep", "sofa", "train", "tvmonitor",
    ),
    voc_colours(21),
    rim=True,
)  # fmt: skip

HINT = (
    "expected VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation} under data.root "
    "(VOCtrainval_11-May-2012.tar from the Pascal VOC site); "
    "trainaug also needs its list and SegmentationClassAug (`seenet data build-trainaug`)"
)
TRAINAUG_COUNT = 10_582
SBD_HINT = (
    "expected dataset/{cls/NAME.mat,train.txt,val.txt} of SBD "
    "(benchmark.tgz: folder benchmark_RELEASE)"
)


def open_voc(settings: DataSettings, which: str) -> FileSplit:
    """Open lists of ImageSets/Segmentation, each image once.

    Masks are the official ones (SegmentationClass) where they exist, else those of
    SegmentationClassAug.

    Args:
        settings: `data` of a recipe.
        which: a name (train, val, trainval, trainaug), the path of a list file, or several joined
            by `+`. The official `trainval` has 2,913 images, `trainaug+val` has 10,582 + 1,449.
    """
    home = voc_home(Path(settings.root or ""))
    lists = [
        Path(part) if part.endswith(".txt") else home / "ImageSets" / "Segmentation" / f"{part}.txt"
        for part in ([which] if Path(which).is_file() else which.split("+"))
    ]
    pairs = []
    for name in dict.fromkeys(name for path in lists for name in _names(path, HINT)):
        mask = home / "SegmentationClass" / f"{name}.png"
        extra = home / "SegmentationClassAug" / f"{name}.png"
        if extra.is_file() and not mask.is_file():
            mask = extra
        pairs.append((name, home / "JPEGImages" / f"{name}.jpg", mask))
    title = f"voc/{'+'.join(path.stem for path in lists)}"
    return file_split(title, VOC21, pairs, read_ids, empty=HINT)


def voc_home(root: Path) -> Path:
    """Return `root`/VOC2012, or `root` itself; raise DataError if it has no JPEGImages."""
    need_folder(root, HINT)
    home = root / "VOC2012" if (root / "VOC2012").is_dir() else root
    if not (home / "JPEGImages").is_dir():
        raise DataError(f"{home}: no folder JPEGImages in it; {HINT}")
    return home


@dataclass(frozen=True)
class TrainaugReport:
    """Result of `build_trainaug`: the list's path, and numbers of images.

    `official`: with VOC's own mask; `written`: with a new mask; `there`: with a mask of an earlier
    run.
    """

    path: Path
    total: int
    official: int
    written: int
    there: int


def build_trainaug(sbd: Path, voc: Path, *, overwrite: bool = False) -> TrainaugReport:
    """Write the masks of trainaug, then its list.

    They are VOC2012/SegmentationClassAug/NAME.png and VOC2012/ImageSets/Segmentation/trainaug.txt.
    Called again after an interruption, it continues; equal files stay untouched.

    Args:
        sbd: SBD's folder benchmark_RELEASE, or the `dataset` in it.
        voc: the folder that holds VOC2012, or VOC2012 itself.
        overwrite: replace existing masks and lists that differ.

    Raises:
        DataError: a list, image or .mat file is missing or damaged, a mask has another size than
            its image or ids outside 0 to 20, or an existing file differs.
    """
    home = voc_home(voc)
    need_folder(sbd, SBD_HINT)
    source = sbd / "dataset" if (sbd / "dataset").is_dir() else sbd
    need_folder(source / "cls", SBD_HINT)
    lists = home / "ImageSets" / "Segmentation"
    names = trainaug_names(
        sbd=[*_names(source / "train.txt", SBD_HINT), *_names(source / "val.txt", SBD_HINT)],
        voc_train=_names(lists / "train.txt", HINT),
        voc_val=_names(lists / "val.txt", HINT),
    )
    if len(names) != TRAINAUG_COUNT:
        logging.getLogger("seenet").warning(
            "trainaug: found %d pictures, expected %d: the lists of SBD or VOC are incomplete",
            len(names),
            TRAINAUG_COUNT,
        )
    todo = [name for name in names if not (home / "SegmentationClass" / f"{name}.png").is_file()]
    _check_present(todo, names, home, source)
    path = lists / "trainaug.txt"
    differ = sorted(set(_names(path, HINT)) ^ set(names)) if path.is_file() else names
    if path.is_file() and differ and not overwrite:
        raise DataError(
            f"{path}: exists already and differs in {len(differ)} names ({differ[0]}, ...); "
            "move it away or use --overwrite"
        )
    written = 0
    with writing_to(home, "make room and call it again, it continues"):
        for name in track(todo, "trainaug", len(todo)):
            written += _write_sbd_mask(name, home, source, overwrite=overwrite)
        # Last: the list means that all masks are there.
        if differ:
            write_text(path, "".join(f"{name}\n" for name in names))
    return TrainaugReport(path, len(names), len(names) - len(todo), written, len(todo) - written)


def trainaug_names(sbd: list[str], voc_train: list[str], voc_val: list[str]) -> list[str]:
    """Return (SBD + VOC train) without VOC val, sorted, each name once.

    Raises:
        DataError: an entry is not a name, but for example a path.
    """
    names = sorted({*sbd, *voc_train} - set(voc_val))
    for name in names:
        if not name.replace("_", "").isalnum():
            raise DataError(
                f"{name}: no name of a picture; "
                "expected one such as 2008_000002 per line in the lists of SBD and VOC"
            )
    return names


def read_sbd_mask(path: Path) -> np.ndarray:
    """Read GTcls.Segmentation of an SBD .mat file: H x W uint8 class ids, 0 to 20.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    # Imported here, since SciPy is slow to import and reading VOC does not need it.
    from scipy.io import loadmat

    try:
        mask = np.asarray(loadmat(path, variable_names=["GTcls"])["GTcls"][0, 0]["Segmentation"])
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {SBD_HINT}") from None
    except Exception as error:  # SciPy raises many kinds for damaged files
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{path}: no GTcls.Segmentation can be read ({reason}); "
            "expected a .mat of SBD's cls folder, copy it again"
        ) from None
    if mask.ndim != 2 or mask.size == 0 or not np.issubdtype(mask.dtype, np.integer):
        shape = " x ".join(map(str, mask.shape))
        raise DataError(
            f"{path}: GTcls.Segmentation is {mask.dtype} of shape {shape}, "
            "expected integers of height x width"
        )
    wrong = (mask < 0) | (mask >= VOC21.num_classes)
    if wrong.any():
        raise DataError(
            f"{path}: id {mask[wrong][0]} ({int(wrong.sum())} pixels outside 0 to 20); "
            "expected VOC's classes, copy it again"
        )
    return mask.astype(np.uint8)


def _write_sbd_mask(name: str, home: Path, source: Path, *, overwrite: bool) -> bool:
    """Write the mask of an image; return False if it exists already."""
    mat, image = source / "cls" / f"{name}.mat", home / "JPEGImages" / f"{name}.jpg"
    mask, size = read_sbd_mask(mat), image_size(image)
    if mask.shape != size:
        raise DataError(
            f"{mat}: {mask.shape[0]} x {mask.shape[1]} pixels, "
            f"but {image} has {size[0]} x {size[1]}; the two are of different releases"
        )
    path = home / "SegmentationClassAug" / f"{name}.png"
    if path.exists() and not overwrite:
        if not np.array_equal(read_ids(path), mask):
            raise DataError(
                f"{path}: exists already and differs from SBD's mask; "
                "move it away or use --overwrite"
            )
        return False
    write_mask(path, mask, VOC21)
    return True


def _check_present(todo: list[str], names: list[str], home: Path, source: Path) -> None:
    """Raise DataError for a missing file, before anything is written."""
    for path in (source / "cls" / f"{name}.mat" for name in todo):
        if not path.is_file():
            raise DataError(
                f"{path}: no such file, and {path.stem} has no official mask either; {SBD_HINT}"
            )
    for path in (home / "JPEGImages" / f"{name}.jpg" for name in names):
        if not path.is_file():
            raise DataError(f"{path}: no such picture, though trainaug lists it; {HINT}")


def _names(path: Path, hint: str) -> list[str]:
    # Some lists hold the paths of image and mask instead of names.
    return [Path(line.split()[0]).stem for line in read_list(path, hint)]
