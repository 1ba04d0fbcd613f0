"""Label sets: class names, colours and the ignored id of a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from seenet.core.errors import UsageError, nearest

IGNORE = 255
"""Ignored id of most label sets, and of padded pixels."""


@dataclass(frozen=True)
class LabelSet:
    """Names and colours of classes 0..K-1, and the id that is not scored.

    `rim`: ignored pixels trace the outlines of objects, so that a trimap around them is useful.
    """

    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ignore: int = IGNORE
    rim: bool = False

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.colours):
            raise ValueError(
                f"{self.name}: {len(self.classes)} classes but {len(self.colours)} colours"
            )
        if 0 <= self.ignore < len(self.classes):
            raise ValueError(
                f"{self.name}: ignore {self.ignore} is also a class; "
                f"use 255, or any id outside 0..{len(self.classes) - 1}"
            )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build a label set from the output of `dataclasses.asdict`.

        Raises:
            KeyError, TypeError, ValueError: `values` is something else.
        """
        colours = tuple((int(r), int(g), int(b)) for r, g, b in values["colours"])
        if not all(0 <= value <= 255 for colour in colours for value in colour):
            raise ValueError("a colour value is not in 0 to 255")
        return cls(
            str(values["name"]),
            tuple(map(str, values["classes"])),
            colours,
            int(values["ignore"]),
            bool(values["rim"]),
        )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def indices(self, names: Sequence[str]) -> list[int]:
        """Return the ids of the named classes, ascending, each once.

        Raises:
            UsageError: the set has no class of this name.
        """
        for name in names:
            if name not in self.classes:
                raise UsageError(
                    f"class {name!r}: not in {self.name}; {nearest(name, self.classes)}"
                )
        return sorted({self.classes.index(name) for name in names})

    def palette(self) -> np.ndarray:
        """Return a 256 x 3 uint8 palette: class colours, white for the ignored id, else black."""
        table = np.zeros((256, 3), np.uint8)
        shown = min(self.num_classes, 256)
        table[:shown] = np.array(self.colours, np.uint8).reshape(-1, 3)[:shown]
        if 0 <= self.ignore < 256:
            table[self.ignore] = 255
        return table


def voc_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return the first colours of Pascal VOC's colour map.

    The lowest three bits of the id are the highest bits of red, green and blue, and so on.
    """
    bits, channels = np.arange(8)[:, None], np.arange(3)
    stored = np.arange(count)[:, None, None] >> (3 * bits + channels)
    table = ((stored & 1) << (7 - bits)).sum(1)
    return tuple((int(r), int(g), int(b)) for r, g, b in table)
