"""What an evaluation server wants to be sent, as data; `voc` and `cityscapes` have one each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seenet.core.errors import DataError
from seenet.core.labels import LabelSet


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
    """Of a picture, for errors."""
    expected: str
    """Name in the archive, for errors."""
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
        if max(found) < len(self.stored):
            hint = f"; looks like trainIds, of which labelIds are to be made: seenet submit {self.name} --masks FOLDER"
        elif 255 in wrong:
            hint = "; 255 is no answer, every pixel needs a class"
        listed = ", ".join(map(str, wrong[:6])) + (", ..." if len(wrong) > 6 else "")
        return f"values {listed}, expected {describe(sorted(allowed))} alone{hint}"


def describe(values: list[int]) -> str:
    """`0 to 20`, or each value where they are not in a row."""
    if values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values))
