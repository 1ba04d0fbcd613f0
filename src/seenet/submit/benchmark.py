"""Rules of the evaluation servers of Pascal VOC 2012 and Cityscapes, as data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seenet.core.errors import DataError
from seenet.core.labels import LabelSet
from seenet.data.cityscapes import CITYSCAPES19, CITYSCAPES_TRAIN_IDS
from seenet.data.voc import VOC21


@dataclass(frozen=True)
class Benchmark:
    """Rules of one server. Sizes are height x width."""

    name: str
    suffix: str
    labels: LabelSet
    """Classes that a model must know."""
    stored: Mapping[int, int]
    """Value in the PNG for each class of the model."""
    modes: frozenset[str]
    """Pillow's modes of the PNGs that the server takes; without L they need the palette."""
    member: re.Pattern[str]
    """Names in the archive: group `id` is the picture's, and `folder`, if any, is common to all."""
    mask: re.Pattern[str]
    """File names of masks to pack, with the group `id`."""
    written: str
    """Name, without folder, of a file in an archive that is written here."""
    picture: re.Pattern[str]
    """Stems of pictures, with the group `id`."""
    example: str
    """A picture's name, for errors."""
    expected: str
    """A name in the archive, for errors."""
    test_count: int
    """Number of pictures in the test set."""
    size: tuple[int, int] | None
    """Size of every picture; None: each has its own."""
    largest: tuple[int, int]

    def id_of(self, path: Path) -> str:
        """Return the id of a picture; DataError for a file with another kind of name."""
        match = self.picture.fullmatch(path.stem)
        if match is None:
            raise DataError(
                f"{path}: not named as {self.name}'s pictures are ({self.example}); "
                "give --images those alone"
            )
        return match["id"]

    def size_fault(self, shape: tuple[int, ...], size: tuple[int, int] | None) -> str:
        """Return what is wrong with a mask's size; `size` is its picture's, None: not known."""
        expected, found = size or self.size, f"{shape[0]} x {shape[1]} pixels"
        if expected is not None and shape != expected:
            why = "its picture's size" if size else "as all of the set have"
            return f"{found}, expected {expected[0]} x {expected[1]}, {why}"
        height, width = self.largest
        if expected is None and (shape[0] > height or shape[1] > width):
            return f"{found}, expected at most {height} x {width}, as {self.name}'s pictures have"
        return ""

    def value_fault(self, ids: np.ndarray) -> str:
        """Return what is wrong with the values of a PNG: each must be one of `stored`."""
        found = np.flatnonzero(np.bincount(ids.ravel())).tolist()
        allowed = sorted(self.stored.values())
        wrong = [value for value in found if value not in allowed]
        if not wrong:
            return ""
        hint = "; 255 is no answer, every pixel needs a class" if 255 in wrong else ""
        if max(found) < len(self.stored):
            hint = (
                "; looks like trainIds, of which labelIds are to be made: "
                f"seenet submit {self.name} --masks FOLDER"
            )
        consecutive = allowed == list(range(len(allowed)))
        names = f"0 to {allowed[-1]}" if consecutive else ", ".join(map(str, allowed))
        listed = ", ".join(map(str, wrong[:6])) + (", ..." if len(wrong) > 6 else "")
        return f"values {listed}, expected {names} alone{hint}"


VOC_FOLDER = "results/VOC2012/Segmentation/comp{}_test_cls"

_ID = r"(?P<id>\d{4}_\d{6})"

VOC = Benchmark(
    name="voc",
    suffix=".tar.gz",
    labels=VOC21,
    stored={label: label for label in range(VOC21.num_classes)},
    modes=frozenset({"P"}),
    member=re.compile(
        r"(?P<folder>results/VOC2012/Segmentation/comp[56]_test_cls)/" + _ID + r"\.png", re.ASCII
    ),
    mask=re.compile(rf"{_ID}\.png", re.ASCII),
    written="{}.png",
    picture=re.compile(_ID, re.ASCII),
    example="2008_000001.jpg",
    expected="results/VOC2012/Segmentation/comp5_test_cls/2008_000001.png (or comp6)",
    test_count=1456,  # Sec. 4.1
    size=None,
    largest=(500, 500),
)
"""Development kit, section 3.3: one .tar.gz of palette PNGs of the picture's size with the classes
0 to 20."""

_FRAME = r"(?P<id>[A-Za-z-]+_\d{6}_\d{6})"
_FRAME_FILE = _FRAME + r"(?:[^/\d][^/]*)?\.png"

CITYSCAPES = Benchmark(
    name="cityscapes",
    suffix=".zip",
    labels=CITYSCAPES19,
    stored={train_id: label for label, train_id in CITYSCAPES_TRAIN_IDS.items()},
    modes=frozenset({"L", "P"}),
    member=re.compile(r"(?:\w[^/]*/)*" + _FRAME_FILE, re.ASCII),
    mask=re.compile(_FRAME_FILE, re.ASCII),
    written="{}_labelIds.png",
    picture=re.compile(rf"{_FRAME}(_leftImg8bit)?", re.ASCII),
    example="berlin_000000_000019_leftImg8bit.png",
    expected="berlin_000000_000019*.png",
    test_count=1525,  # Sec. 4.3
    size=(1024, 2048),
    largest=(1024, 2048),
)
"""evalPixelLevelSemanticLabeling.py: a .zip of CITY_SEQUENCE_FRAME*.png in any folder, with one
channel of labelIds, 2048 x 1024."""
