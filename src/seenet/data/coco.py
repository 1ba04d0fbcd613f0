"""COCO's instances as the 21 classes of Pascal VOC (`coco21`), decoded by pycocotools."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from seenet.core.errors import DataError, UsageError, nearest
from seenet.core.files import cache_folder, digest, sha256, write_cache
from seenet.core.images import MAX_PIXELS, read_image
from seenet.core.labels import LabelSet
from seenet.core.progress import track
from seenet.core.settings import DataSettings
from seenet.data.polygons import Instance, Overlap, draw
from seenet.data.split import file_stamp, label_parts, need_folder, size_mismatch
from seenet.data.voc import VOC21

# `rim` is false: ignored pixels are crowds and overlaps.
COCO21 = LabelSet("coco21", VOC21.classes, VOC21.colours)

HINT = (
    "expected annotations/instances_{train,val}2017.json and the folders train2017, val2017 of "
    "JPEGs (cocodataset.org); set data.root"
)
FOLDERS = {"train": ("train2017",), "val": ("val2017",), "trainval": ("train2017", "val2017")}
"""Folders that make up each split."""
LEAST_PIXELS = 1000
"""Least number of pixels of classes 1 to 20 in an image for training."""
RULE = 1
"""Version of how masks are drawn; a change invalidates cached counts."""

# COCO's category of VOC's classes 1 to 20, with COCO's name for it.
CATEGORIES = {
    5: "airplane", 2: "bicycle", 16: "bird", 9: "boat", 44: "bottle", 6: "bus", 3: "car",
    17: "cat", 62: "chair", 21: "cow", 67: "dining table", 18: "dog", 19: "horse",
    4: "motorcycle", 1: "person", 64: "potted plant", 20: "sheep", 63: "couch", 7: "train",
    72: "tv",
}  # fmt: skip
_LABELS = {category: label for label, category in enumerate(CATEGORIES, start=1)}


@dataclass(frozen=True)
class Picture:
    """An image of COCO and its instances.

    `instances`: those of the 20 classes, as JSON text. As Python objects, hundreds of thousands of
    outlines would take gigabytes, and every loader process would copy them.
    """

    id: int
    key: str
    path: Path
    height: int
    width: int
    instances: bytes


@dataclass(frozen=True)
class CocoSplit:
    """Images of COCO; masks are drawn when they are read."""

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
        """Draw H x W class ids; raise DataError for an annotation that cannot be drawn."""
        picture = self.pictures[index]
        try:
            instances = [Instance(*values) for values in json.loads(picture.instances)]
            return draw(instances, picture.height, picture.width, self.overlap)[0]
        except UsageError:
            raise
        except ValueError as error:
            raise DataError(
                f"{picture.path}: its annotations have {error}; copy the annotation file again"
            ) from None

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self.image(index), self.mask(index)
        if image.shape[:2] != mask.shape:
            raise size_mismatch(
                self.pictures[index].path, image.shape[:2], Path("its annotation"), mask.shape
            )
        return image, mask

    def paths(self, index: int) -> tuple[Path, None]:
        return self.pictures[index].path, None

    def stamp(self, index: int) -> str:
        picture = self.pictures[index]
        outlines = hashlib.sha256(picture.instances).hexdigest()
        return digest(
            *label_parts(self.labels), str(RULE), self.overlap, outlines, file_stamp(picture.path)
        )


def open_coco(settings: DataSettings, which: str) -> CocoSplit:
    """Open `train`, `val` or `trainval`.

    `val` has all of its images, the others those with at least 1,000 pixels of the 20 classes.
    These are counted once per annotation file (minutes for train2017) and cached by its hash.
    """
    if which not in FOLDERS:
        raise UsageError(f"COCO has no split {which}; {nearest(which, FOLDERS)}")
    root = Path(settings.root or "")
    need_folder(root, HINT)
    pictures: list[Picture] = []
    for folder in FOLDERS[which]:
        need_folder(root / folder, HINT)
        annotations = root / "annotations" / f"instances_{folder}.json"
        found = tuple(read_annotations(annotations, root / folder))
        whole = CocoSplit(f"coco/{folder}", found, settings.overlap)
        pictures += found if which == "val" else _large_enough(whole, sha256(annotations))
    if not pictures:
        raise DataError(f"coco/{which}: no pictures found; {HINT}")
    for picture in pictures:
        if not picture.path.is_file():
            raise DataError(
                f"{picture.path}: no such picture, though the annotations list it; copy it there"
            )
    return CocoSplit(f"coco/{which}", tuple(pictures), settings.overlap)


def read_annotations(path: Path, folder: Path) -> Iterator[Picture]:
    """Yield the images of an instances file, in its order.

    Raises:
        DataError: the file is missing, is not COCO's JSON, has other categories, or names files
            outside the folder.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; {HINT}")
    try:
        content = json.loads(path.read_bytes())
        names = {category["id"]: category["name"] for category in content["categories"]}
        for category, name in CATEGORIES.items():
            if names.get(category) != name:
                raise DataError(
                    f"{path}: category {category} is {names.get(category)!r}, "
                    f"expected {name!r}: not COCO's own categories"
                )
        instances: dict[int, list[Any]] = {image["id"]: [] for image in content["images"]}
        if len(instances) != len(content["images"]):
            raise DataError(f"{path}: two pictures share an id; copy the file again")
        for entry in content["annotations"]:
            if entry["category_id"] in _LABELS:
                instances[entry["image_id"]].append(
                    [_LABELS[entry["category_id"]], bool(entry["iscrowd"]), entry["segmentation"]]
                )
        for image in content["images"]:
            name, height, width = image["file_name"], image["height"], image["width"]
            if name in {"", ".."} or PurePosixPath(name).name != name or "\\" in name:
                raise DataError(
                    f"{path}: picture {name!r} is no plain file name; it must lie in {folder}"
                )
            if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
                raise DataError(
                    f"{path}: picture {name} of {height} x {width} pixels, "
                    f"expected 1 to {MAX_PIXELS}"
                )
            encoded = json.dumps(instances.pop(image["id"]), separators=(",", ":")).encode()
            key = f"{folder.name}/{Path(name).stem}"
            yield Picture(int(image["id"]), key, folder / name, height, width, encoded)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise DataError(
            f"{path}: not COCO's instances ({reason}); "
            "expected images, annotations and categories, copy it again"
        ) from None


def _large_enough(split: CocoSplit, annotations: str) -> list[Picture]:
    """Return the images with at least LEAST_PIXELS of classes 1 to 20.

    The result is cached by `annotations`, the hash of the annotation file.
    """
    key = digest(str(RULE), annotations, split.overlap, str(LEAST_PIXELS))
    cache = cache_folder() / f"coco21-{key[:16]}.json"
    ids = _read_cache(cache, key)
    if ids is None:

        def large(index: int) -> bool:
            mask = split.mask(index)
            return int(((mask > 0) & (mask < COCO21.num_classes)).sum()) >= LEAST_PIXELS

        with ThreadPoolExecutor(2) as pool:
            results = pool.map(large, range(len(split)))
            tracked = track(results, f"counting {split.name}", len(split))
            ids = {
                picture.id for picture, kept in zip(split.pictures, tracked, strict=True) if kept
            }
        write_cache(cache, {"key": key, "pictures": sorted(ids)})
    return [picture for picture in split.pictures if picture.id in ids]


def _read_cache(path: Path, key: str) -> set[int] | None:
    """Return the ids of the images that were large enough; None if they are not cached."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {int(picture) for picture in content["pictures"]} if content["key"] == key else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
