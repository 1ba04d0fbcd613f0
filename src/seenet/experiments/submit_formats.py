"""What the evaluation servers of Pascal VOC and Cityscapes want to be sent.

VOC 2012 development kit, section 3.3: results/VOC2012/Segmentation/comp{5,6}_test_cls/ID.png in one .tar.gz, indexed PNGs of the
picture's size with classes 0 to 20. Cityscapes (evalPixelLevelSemanticLabeling.py): CITY_SEQUENCE_FRAME*.png anywhere in a .zip, one
channel of labelIds, 2048 x 1024.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seenet.core.errors import DataError
from seenet.core.labels import CITYSCAPES19, CITYSCAPES_TRAIN_IDS, VOC21, LabelSet

VOC_FOLDER = "results/VOC2012/Segmentation/comp{}_test_cls"

_VOC_ID = r"(?P<id>\d{4}_\d{6})"
_FRAME = r"(?P<id>[A-Za-z-]+_\d{6}_\d{6})"
_FRAME_FILE = _FRAME + r"(?:[^/\d][^/]*)?\.png"


@dataclass(frozen=True)
class Benchmark:
    """One server's rules. Sizes are height x width."""

    name: str
    suffix: str
    labels: LabelSet
    """What a model must know to be sent in."""
    stored: Mapping[int, int]
    """Class of the model -> value in the PNG."""
    modes: frozenset[str]
    """Pillow's modes of the PNGs that are taken; the palette is the classes' where the first is P."""
    member: re.Pattern[str]
    """Names in the archive; `id` is the picture's, and `folder`, where there is one, the same for all."""
    mask: re.Pattern[str]
    """File names of masks that are to be packed; `id` as above."""
    written: str
    """Name of a file in an archive that is written here, without folder."""
    picture: re.Pattern[str]
    """Stems of pictures; `id` as above."""
    example: str
    test_count: int
    size: tuple[int, int] | None
    """Of every picture; None: each has its own."""
    largest: tuple[int, int]

    def id_of(self, path: Path) -> str:
        """The benchmark's name of a picture; DataError where the file is not named as the benchmark's are."""
        match = self.picture.fullmatch(path.stem)
        if match is None:
            raise DataError(f"{path}: not named as {self.name}'s pictures are ({self.example}); give --images those alone")
        return match["id"]

    def fault(self, shape: tuple[int, ...], size: tuple[int, int] | None) -> str | None:
        """What is wrong with a mask's size, given its picture's (None: not known)."""
        expected = size or self.size
        if expected is not None and shape != expected:
            why = "as all of the set have" if size is None else "its picture's size"
            return f"{shape[0]} x {shape[1]} pixels, expected {expected[0]} x {expected[1]}, {why}"
        if expected is None and (shape[0] > self.largest[0] or shape[1] > self.largest[1]):
            return f"{shape[0]} x {shape[1]} pixels, expected at most {self.largest[0]} x {self.largest[1]}, as {self.name}'s pictures have"
        return None

    def wrong_values(self, ids: np.ndarray) -> str | None:
        """What is wrong with the values of a PNG: all must be of scored classes."""
        found = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)).tolist()
        allowed = set(self.stored.values())
        wrong = [value for value in found if value not in allowed]
        if not wrong:
            return None
        hint = ""
        if self.name == "cityscapes" and max(found) < len(self.stored):
            hint = "; looks like trainIds, of which labelIds are to be made: seenet submit cityscapes --masks FOLDER"
        elif 255 in wrong:
            hint = "; 255 is no answer, every pixel needs a class"
        listed = ", ".join(map(str, wrong[:6])) + (", ..." if len(wrong) > 6 else "")
        return f"values {listed}, expected {describe(sorted(allowed))} alone{hint}"


def describe(values: list[int]) -> str:
    """`0 to 20`, or each value where they are not in a row."""
    if values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values))


VOC = Benchmark(
    name="voc",
    suffix=".tar.gz",
    labels=VOC21,
    stored={label: label for label in range(VOC21.num_classes)},
    modes=frozenset({"P"}),
    member=re.compile(r"(?P<folder>results/VOC2012/Segmentation/comp[56]_test_cls)/" + _VOC_ID + r"\.png", re.ASCII),
    mask=re.compile(rf"{_VOC_ID}\.png", re.ASCII),
    written="{}.png",
    picture=re.compile(_VOC_ID, re.ASCII),
    example="2008_000001.jpg",
    test_count=1456,  # Sec. 4.1
    size=None,
    largest=(500, 500),
)

CITYSCAPES = Benchmark(
    name="cityscapes",
    suffix=".zip",
    labels=CITYSCAPES19,
    stored={train_id: label for label, train_id in CITYSCAPES_TRAIN_IDS.items()},
    modes=frozenset({"L", "P"}),
    member=re.compile(r"(?:[^/]+/)*" + _FRAME_FILE, re.ASCII),
    mask=re.compile(_FRAME_FILE, re.ASCII),
    written="{}_labelIds.png",
    picture=re.compile(rf"{_FRAME}(_leftImg8bit)?", re.ASCII),
    example="berlin_000000_000019_leftImg8bit.png",
    test_count=1525,  # Sec. 4.3
    size=(1024, 2048),
    largest=(1024, 2048),
)
