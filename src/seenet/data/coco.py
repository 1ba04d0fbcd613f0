"""COCO's instances as the 21 classes of Pascal VOC (`coco21`)."""

import hashlib
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from seenet.core.errors import DataError, UsageError, nearest
from seenet.core.files import cache_folder, digest, sha256, write_text
from seenet.core.images import MAX_PIXELS, read_image
from seenet.core.labels import COCO21
from seenet.core.progress import track
from seenet.core.settings import DataSettings
from seenet.data.coco_masks import Instance, Overlap, draw
from seenet.data.split import file_stamp, label_parts, need_folder, size_mismatch

_log = logging.getLogger("seenet")

HINT = "expected annotations/instances_{train,val}2017.json and the folders train2017, val2017 of JPEGs (cocodataset.org); set data.root"
PARTS = {"train": ("train2017",), "val": ("val2017",), "trainval": ("train2017", "val2017")}
LEAST_PIXELS = 1000
"""Of classes 1 to 20 together, in a picture that is trained on."""
RULE = 1
"""Raised when masks are drawn otherwise than before, so that what was counted then is counted again."""

# COCO's category of VOC's classes 1 to 20, with COCO's name for it.
CATEGORIES = {
    5: "airplane", 2: "bicycle", 16: "bird", 9: "boat", 44: "bottle", 6: "bus", 3: "car", 17: "cat", 62: "chair", 21: "cow",
    67: "dining table", 18: "dog", 19: "horse", 4: "motorcycle", 1: "person", 64: "potted plant", 20: "sheep", 63: "couch",
    7: "train", 72: "tv",
}  # fmt: skip
_LABELS = {category: label for label, category in enumerate(CATEGORIES, start=1)}


@dataclass(frozen=True)
class Picture:
    """`instances`: those of the 20 classes, as JSON text. Hundreds of thousands of outlines as Python's numbers would take gigabytes,
    and every loader process would come to copy them.
    """

    id: int
    key: str
    path: Path
    height: int
    width: int
    instances: bytes


@dataclass(frozen=True)
class CocoSplit:
    """Pictures of COCO; a mask is drawn when it is read."""

    name: str
    pictures: tuple[Picture, ...]
    overlap: Overlap
    labels = COCO21

    def __len__(self) -> int:
        return len(self.pictures)

    def key(self, index: int) -> str:
        return self.pictures[index].key

    def image(self, index: int) -> np.ndarray:
        return read_image(self.pictures[index].path)

    def mask(self, index: int) -> np.ndarray:
        """H x W class ids; DataError for an annotation that cannot be drawn."""
        picture = self.pictures[index]
        instances = [Instance(*values) for values in json.loads(picture.instances)]
        try:
            return draw(instances, picture.height, picture.width, self.overlap)
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
            raise DataError(f"{picture.path}: its annotations have {error}; copy the annotation file again") from None

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self.image(index), self.mask(index)
        if image.shape[:2] != mask.shape:
            raise size_mismatch(self.pictures[index].path, image.shape[:2], Path("its annotation"), mask.shape)
        return image, mask

    def paths(self, index: int) -> tuple[Path, None]:
        return self.pictures[index].path, None

    def stamp(self, index: int) -> str:
        picture = self.pictures[index]
        outlines = hashlib.sha256(picture.instances).hexdigest()
        return digest(*label_parts(self.labels), str(RULE), self.overlap, outlines, file_stamp(picture.path))


def open_coco(settings: DataSettings, which: str) -> CocoSplit:
    """`train` or `trainval`: pictures with at least 1,000 pixels of the 20 classes; `val`: all of its pictures.

    Which pictures those are is worked out once for an annotation file (minutes for train2017) and remembered by its hash.
    """
    if which not in PARTS:
        raise UsageError(f"COCO has no split {which}; {nearest(which, PARTS)}")
    root = Path(settings.root or "")
    need_folder(root, HINT)
    pictures: list[Picture] = []
    for part in PARTS[which]:
        need_folder(root / part, HINT)
        annotations = root / "annotations" / f"instances_{part}.json"
        found = tuple(read_annotations(annotations, root / part))
        whole = CocoSplit(f"coco/{part}", found, settings.overlap)
        kept = _large_enough(whole, sha256(annotations)) if which != "val" else range(len(whole))
        pictures += [found[index] for index in kept]
    if not pictures:
        raise DataError(f"coco/{which}: no pictures found; {HINT}")
    for picture in pictures:
        if not picture.path.is_file():
            raise DataError(f"{picture.path}: no such picture, though the annotations list it; copy it there")
    return CocoSplit(f"coco/{which}", tuple(pictures), settings.overlap)


def read_annotations(path: Path, folder: Path) -> Iterator[Picture]:
    """Pictures of an instances file, in its order. DataError: not there, no such JSON, other categories, names that leave the folder."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; {HINT}")
    try:
        content = json.loads(path.read_bytes())
        names = {category["id"]: category["name"] for category in content["categories"]}
        for category, name in CATEGORIES.items():
            if names.get(category) != name:
                raise DataError(f"{path}: category {category} is {names.get(category)!r}, expected {name!r}: not COCO's own categories")
        drawn: dict[int, list[Any]] = {image["id"]: [] for image in content["images"]}
        if len(drawn) != len(content["images"]):
            raise DataError(f"{path}: two pictures share an id; copy the file again")
        for entry in content["annotations"]:
            if entry["category_id"] in _LABELS:
                drawn[entry["image_id"]].append([_LABELS[entry["category_id"]], bool(entry["iscrowd"]), entry["segmentation"]])
        for image in content["images"]:
            name, height, width = image["file_name"], image["height"], image["width"]
            if name in {"", ".."} or PurePosixPath(name).name != name or "\\" in name:
                raise DataError(f"{path}: picture {name!r} is no plain file name; it must lie in {folder}")
            if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
                raise DataError(f"{path}: picture {name} of {height} x {width} pixels, expected 1 to {MAX_PIXELS}")
            instances = json.dumps(drawn.pop(image["id"]), separators=(",", ":")).encode()
            yield Picture(int(image["id"]), f"{folder.name}/{Path(name).stem}", folder / name, height, width, instances)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise DataError(f"{path}: not COCO's instances ({reason}); expected images, annotations and categories, copy it again") from None


def _large_enough(split: CocoSplit, annotations: str) -> list[int]:
    """Indices of the pictures with at least LEAST_PIXELS of classes 1 to 20, from the cache where they have been counted before."""
    key = digest(str(RULE), annotations, split.overlap, str(LEAST_PIXELS))
    store = cache_folder() / f"coco21-{key[:16]}.json"
    kept = _remembered(store, key)
    if kept is None:

        def enough(index: int) -> bool:
            mask = split.mask(index)
            return int(((mask > 0) & (mask < COCO21.num_classes)).sum()) >= LEAST_PIXELS

        with ThreadPoolExecutor(2) as pool:
            counted = zip(split.pictures, pool.map(enough, range(len(split))), strict=True)
            kept = {picture.id for picture, good in track(counted, f"counting {split.name}", len(split)) if good}
        try:
            write_text(store, json.dumps({"key": key, "pictures": sorted(kept)}))
        except OSError as error:
            _log.info("%s: cannot be written (%s); the pictures will be counted again next time", store, error)
    return [index for index, picture in enumerate(split.pictures) if picture.id in kept]


def _remembered(store: Path, key: str) -> set[int] | None:
    """Ids of the pictures that were large enough; None where that is not known."""
    try:
        content = json.loads(store.read_text(encoding="utf-8"))
        return {int(picture) for picture in content["pictures"]} if content["key"] == key else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
