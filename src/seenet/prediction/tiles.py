"""How pictures that are too large for one pass are cut into overlapping tiles. Imports no torch."""

from dataclasses import dataclass
from typing import Any, Literal

from seenet.core.errors import UsageError

STEP = 32
"""Tiles begin at multiples of this, the largest stride of any network here: so their grids are
parts of the picture's grid.
"""
MARGIN = 256
MEMORY = 2.0
HELD = 1 / 8
"""Share of the budget that is left for blocks of a TIFF and for memory that was freed and not given
back. Measured.
"""

TileSize = int | Literal["auto", "whole"]


@dataclass(frozen=True)
class Span:
    """Rows (or columns) of a tile: it answers for `first` to `last` and sees `begin` to `end`, ends
    not included.
    """

    first: int
    last: int
    begin: int
    end: int


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut.

    Args:
        tile: side in pixels of what the network sees at once, margins in it; "auto": as large as
            `memory` allows; "whole": never cut.
        margin: pixels that a tile sees around those that it answers for; rounded up to a multiple
            of 32.
        memory: bytes / 10^9 that a pass may take, by an estimate, before "auto" cuts, and that a
            picture in tiles may take. The smallest tile that its margins leave anything of is taken
            even where it does not fit.

    Raises:
        UsageError: a negative margin or memory, a tile that its margins leave nothing of.
    """

    tile: TileSize = "whole"
    margin: int = MARGIN
    memory: float = MEMORY

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise UsageError(f"margin {self.margin}: expected 0 or more pixels")
        if not self.memory > 0:
            raise UsageError(f"memory {self.memory:g}: expected more than 0 gigabytes")
        if isinstance(self.tile, str):
            if self.tile not in ("auto", "whole"):
                raise UsageError(f"tile {self.tile}: expected auto, whole, or a number of pixels")
        elif self.tile < self.least:
            raise UsageError(f"tile {self.tile}: expected at least {self.least} pixels, for a margin of {self.margin}")

    @property
    def overlap(self) -> int:
        """Return the margin as it is used: a multiple of `STEP`."""
        return -(-self.margin // STEP) * STEP

    @property
    def least(self) -> int:
        """Return the side of the smallest tile that answers for anything."""
        return 2 * (self.overlap + STEP)

    @property
    def settings(self) -> dict[str, Any]:
        """Return what changes answers; nothing where pictures are never cut."""
        if self.tile == "whole":
            return {}
        return {"tile": self.tile, "margin": self.margin, **({"memory": self.memory} if self.tile == "auto" else {})}

    def side(self, size: tuple[int, int], seen: float, kept: float) -> int | None:
        """Return the side of the tiles of a picture; None: it is seen whole.

        Args:
            size: height and width of the picture.
            seen: bytes a pixel of a pass.
            kept: bytes a pixel of the rows of scores that wait to be resized.
        """
        if self.tile == "whole":
            return None
        if isinstance(self.tile, int):
            return None if max(size) <= self.tile else self.tile // STEP * STEP
        budget = self.memory * 1e9
        if size[0] * size[1] * seen <= budget:
            return None
        side = self.least
        while self._fits(side + STEP, size, seen, kept, (1 - HELD) * budget):
            side += STEP
        return side

    def _fits(self, side: int, size: tuple[int, int], seen: float, kept: float, budget: float) -> bool:
        # Two rows of tiles are there at once, where the second one begins; the picture's first one reaches to its border.
        rows = 2 * side - 3 * self.overlap
        return side**2 * seen + rows * size[1] * kept <= budget

    def spans(self, length: int, side: int, *, congruent: bool = True) -> list[Span]:
        """Cut an axis of `length` pixels. Each tile answers for what lies a margin inside of it, or
        reaches to the border.

        Args:
            length: pixels of the picture along the axis.
            side: pixels that a tile sees at most.
            congruent: let tiles see `length` pixels but for multiples of 32, since networks that
                pad one side more than the other decide by the remainder which one. Otherwise tiles
                that do not end at the border see multiples of 32.
        """
        if length <= side:
            return [Span(0, length, 0, length)]
        found, first, begin = [], 0, 0
        seen = side - (side - length) % STEP if congruent else side // STEP * STEP
        while begin + seen < length:
            last = (begin + seen - self.overlap) // STEP * STEP
            found.append(Span(first, last, begin, begin + seen))
            first, begin = last, last - self.overlap
        return [*found, Span(first, length, begin, length)]
