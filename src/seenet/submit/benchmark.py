"""Rules of an evaluation server, as data; `voc` and `cityscapes` have one each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seenet.core.errors import DataError
from seenet.core.labels import LabelSet


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
