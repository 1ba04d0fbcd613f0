"""Label sets: class names, colours and the ignored id of each data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from seenet.core.errors import UsageError, nearest

IGNORE = 255
"""Ignored id of most sets, and what padding gets."""


@dataclass(frozen=True)
class LabelSet:
    """Names and colours of classes 0..K-1, and the id that is not scored.

    `rim` says that ignored pixels trace the objects' outlines, so that a trimap band around them is meaningful.
    """

    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ignore: int = IGNORE
    rim: bool = False

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.colours):
            raise ValueError(f"{self.name}: {len(self.classes)} classes but {len(self.colours)} colours")
        if 0 <= self.ignore < len(self.classes):
            raise ValueError(f"{self.name}: ignore {self.ignore} is also a class; use 255, or any id outside 0..{len(self.classes) - 1}")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` made; KeyError, TypeError or ValueError where it is something else."""
        colours = tuple((int(r), int(g), int(b)) for r, g, b in values["colours"])
        if not all(0 <= part <= 255 for colour in colours for part in colour):
            raise ValueError("a colour is not of 0 to 255")
        return cls(str(values["name"]), tuple(map(str, values["classes"])), colours, int(values["ignore"]), bool(values["rim"]))

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def indices(self, names: Sequence[str]) -> list[int]:
        """Look up the ids of classes by name, ascending, each once; UsageError for a name that the set does not have."""
        for name in names:
            if name not in self.classes:
                raise UsageError(f"class {name!r}: not in {self.name}; {nearest(name, self.classes)}")
        return sorted({self.classes.index(name) for name in names})

    def palette(self) -> np.ndarray:
        """Make a 256 x 3 uint8 palette: the classes' colours, black elsewhere, white for the ignored id."""
        table = np.zeros((256, 3), np.uint8)
        shown = min(self.num_classes, 256)
        table[:shown] = np.array(self.colours, np.uint8).reshape(-1, 3)[:shown]
        if 0 <= self.ignore < 256:
            table[self.ignore] = 255
        return table


def voc_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Make Pascal VOC's colour map: the bits of the class id, dealt in turn to red, green and blue from the highest bit down."""
    ids = np.arange(count)
    table = np.zeros((count, 3), int)
    for bit in range(8):
        for channel in range(3):
            table[:, channel] |= ((ids >> (3 * bit + channel)) & 1) << (7 - bit)
    return tuple((int(r), int(g), int(b)) for r, g, b in table)
