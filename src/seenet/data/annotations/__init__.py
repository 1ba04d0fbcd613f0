"""Formats of annotations that `seenet data convert` reads, one file each."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from seenet.core.errors import DataError
from seenet.data.annotations import coco, cvat, labelme, mask_files, yolo
from seenet.data.annotations.tree import Annotations, Tree, holds

__all__ = ["FORMATS", "Format", "Tree", "find_formats", "find_unsupported"]


class Format(NamedTuple):
    """A format of annotations.

    Attributes:
        find: yields the files of the format.
        read: reads all of these; what is wrong with some it appends to the list of errors.
    """

    find: Callable[[Tree], Iterator[Path]]
    read: Callable[[Tree, list[Path], list[DataError]], Annotations]


FORMATS = {
    "COCO": Format(coco.find, coco.read),
    "Labelme": Format(labelme.find, labelme.read),
    "CVAT": Format(cvat.find, cvat.read),
    "YOLO": Format(yolo.find, yolo.read),
}
MASK_FILES = {
    "a mask file an object": Format(mask_files.find_objects, mask_files.read_objects),
    "a mask file a class": Format(mask_files.find_classes, mask_files.read_classes),
}
"""Formats of mask files alone, looked for where there are no others."""
# Suffixes and words of files that are recognized but not read.
_UNSUPPORTED: dict[str, tuple[tuple[str, ...], tuple[bytes, ...]]] = {
    "VIA": ((".json", ".csv"), (b"shape_attributes", b"region_attributes")),
    "Supervisely": ((".json",), (b'"objects"', b'"classTitle"')),
    "nnU-Net or another NIfTI": ((".gz", ".nii"), ()),
    "Kaggle's RLE in CSV": ((".csv",), (b"EncodedPixels",)),
    "MATLAB": ((".mat",), ()),
}


def find_formats(tree: Tree) -> dict[str, Format]:
    """Return the formats that are found; the first of mask files only if there is no other."""
    found = {name: one for name, one in FORMATS.items() if _any(one, tree)}
    others = ({name: one} for name, one in MASK_FILES.items() if _any(one, tree))
    return found or next(others, {})


def _any(one: Format, tree: Tree) -> bool:
    return next(one.find(tree), None) is not None


def find_unsupported(tree: Tree) -> str | None:
    """Return name and a file of a format that is known but not read; None if there is none."""
    for name, (suffixes, words) in _UNSUPPORTED.items():
        for path in tree.files(*suffixes):
            if path.suffix == ".gz" and not path.name.endswith(".nii.gz"):
                continue
            if not words or holds(path, *words):
                return f"annotations of {name} ({path.relative_to(tree.folder)})"
    return None
