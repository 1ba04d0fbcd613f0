"""COCO's instances as the 21 classes of Pascal VOC (`coco21`).

Outlines and run lengths are decoded by pycocotools.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from seenet.core.errors import DataError, UsageError, nearest
from seenet.core.files import cache_folder, digest, sha256, write_text
from seenet.core.images import MAX_PIXELS, read_image
from seenet.core.labels import IGNORE, LabelSet
from seenet.core.progress import track
from seenet.core.settings import DataSettings
from seenet.data.split import file_stamp, label_parts, need_folder, size_mismatch
from seenet.data.voc import VOC21

_log = logging.getLogger("seenet")

# No rim: what COCO ignores are crowds and overlaps.
COCO21 = LabelSet("coco21", VOC21.classes, VOC21.colours)

HINT = "expected annotations/instances_{train,val}2017.json and the folders train2017, val2017 of JPEGs (cocodataset.org); set data.root"
PARTS = {"train": ("train2017",), "val": ("val2017",), "trainval": ("train2017", "val2017")}
LEAST_PIXELS = 1000
"""Of classes 1 to 20 together, in a picture that is trained on."""
RULE = 1
"""Raise it when masks are drawn otherwise than before: all is counted again then."""

# COCO's category of VOC's classes 1 to 20, with COCO's name for it.
CATEGORIES = {
    5: "airplane", 2: "bicycle", 16: "bird", 9: "boat", 44: "bottle", 6: "bus", 3: "car", 17: "cat", 62: "chair", 21: "cow",
    67: "dining table", 18: "dog", 19: "horse", 4: "motorcycle", 1: "person", 64: "potted plant", 20: "sheep", 63: "couch",
    7: "train", 72: "tv",
}  # fmt: skip
_LABELS = {category: label for label, category in enumerate(CATEGORIES, start=1)}

Overlap = Literal["ignore", "smallest-on-top"]

FURTHEST = 10
"""How far corners of an outline may lie outside the picture, in its longer side: pycocotools draws
every step of an edge before it cuts."""


@dataclass(frozen=True)
class Picture:
    """A picture of COCO and its instances.

    `instances`: those of the 20 classes, as JSON text. Hundreds of thousands of outlines as
    Python's numbers would take gigabytes, and every loader process would come to copy them.
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
        """Draw H x W class ids; raise DataError for an annotation that cannot be drawn."""
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
    """Open `train`, `val` or `trainval`.

    `val` has all of its pictures, the others those with at least 1,000 pixels of the 20 classes.
    Which these are is worked out once for an annotation file (minutes for train2017) and remembered
    by its hash.
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
    """Read the pictures of an instances file, in its order.

    Raises:
        DataError: no such file, not COCO's JSON, other categories, or names that leave the folder.
    """
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
    """Select the pictures with at least LEAST_PIXELS of classes 1 to 20.

    What was counted before is taken from the cache.
    """
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
    """Read which pictures (ids) were large enough; None where that is not known."""
    try:
        content = json.loads(store.read_text(encoding="utf-8"))
        return {int(picture) for picture in content["pictures"]} if content["key"] == key else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


@dataclass(frozen=True)
class Instance:
    """One annotation: VOC class 1 to 20, whether it is a crowd, and COCO's `segmentation`.

    `segmentation`: outlines or run lengths.
    """

    label: int
    crowd: bool
    segmentation: Any


def draw(instances: list[Instance], height: int, width: int, overlap: Overlap) -> np.ndarray:
    """Draw instances: height x width uint8, classes 1 to 20, background 0, 255 where not scored.

    Crowds are 255 where no instance lies over them. Pixels of two classes are 255, or belong to the
    instance with the fewest pixels (of equal ones to the later).

    Raises:
        ValueError: in one line, a segmentation that is none.
        UsageError: pycocotools is not installed.
    """
    tools = _pycocotools()
    mask = np.zeros((height, width), np.uint8)
    encoded = [(one, _encode(tools, one.segmentation, height, width)) for one in instances]
    crowds = [rle for one, rle in encoded if one.crowd]
    if crowds:
        mask[_pixels(tools, crowds)] = IGNORE
    if overlap == "smallest-on-top":
        single = [(int(tools.area(rle)), one.label, rle) for one, rle in encoded if not one.crowd]
        for _, label, rle in sorted(single, key=lambda entry: -entry[0]):
            mask[_pixels(tools, [rle])] = label
        return mask
    taken, twice = np.zeros((2, height, width), bool)
    for label in sorted({one.label for one, _ in encoded if not one.crowd}):
        pixels = _pixels(tools, [rle for one, rle in encoded if one.label == label and not one.crowd])
        mask[pixels] = label
        twice |= taken & pixels
        taken |= pixels
    mask[twice] = IGNORE
    return mask


def _pixels(tools: Any, encoded: list[dict[str, Any]]) -> np.ndarray:
    """Decode the union of run lengths: height x width bool."""
    pixels: np.ndarray = tools.decode(tools.merge(encoded)).astype(bool)
    return pixels


def _encode(tools: Any, segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Encode outlines (their union) or run lengths as compressed run lengths.

    Everything is checked before: pycocotools reads what it is given as it comes, and leaves memory
    as it found it where the run lengths stop too early.
    """
    if isinstance(segmentation, list):
        _check_outlines(segmentation, FURTHEST * max(height, width))
        return dict(tools.merge(tools.frPyObjects(segmentation, height, width)))
    if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        raise ValueError(f"a segmentation is neither outlines nor run lengths of size [{height}, {width}]")
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _run_lengths(counts)
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError("run lengths that are no whole numbers from 0 up")
    if sum(counts) != height * width:
        raise ValueError(f"run lengths of {sum(counts)} pixels for a picture of {height * width}")
    return dict(tools.frPyObjects({"size": [height, width], "counts": counts}, height, width))


def _check_outlines(outlines: list[Any], furthest: float) -> None:
    if not outlines:
        raise ValueError("a segmentation without outlines")
    for outline in outlines:
        if not isinstance(outline, list) or len(outline) < 6 or len(outline) % 2:
            raise ValueError("an outline that is no list of at least three corners x, y")
        for value in outline:
            if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > furthest:
                raise ValueError(f"an outline with a corner at {value!r}"[:80])


def _run_lengths(text: str) -> list[int]:
    """Decode COCO's compressed run lengths (maskApi.c, rleFrString).

    5 bits a character from the lowest up, bit 6 says that more follow; from the fourth number on it
    is the difference to the one before the last.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("compressed run lengths that cannot be read")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("compressed run lengths that end too early")
    return counts


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError:
        raise UsageError("data.kind=coco: pycocotools is not installed; pip install 'seenet[coco]'") from None
    return mask
