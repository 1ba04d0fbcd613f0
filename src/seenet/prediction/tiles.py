"""How a picture that is too large for one pass is cut into overlapping tiles, without torch."""

from dataclasses import dataclass
from typing import Any, Literal

from seenet.core.errors import UsageError

STEP = 32
"""Tiles begin at multiples of this, the largest stride of any network here, so that their grids are
parts of the picture's grid.
"""
MARGIN = 256
MEMORY = 2.0
RESERVED = 1 / 8
"""Measured share of the budget for blocks of a TIFF and for freed memory that is not given back."""

TileSize = int | Literal["auto", "whole"]


@dataclass(frozen=True)
class Span:
    """Rows (or columns) of a tile: it gives the scores of `first` to `last` and sees `begin` to
    `end`; both ends are exclusive.
    """

    first: int
    last: int
    begin: int
    end: int


@dataclass(frozen=True)
class Tiling:
    """Rules for cutting pictures.

    Args:
        tile: Side in pixels of what the network sees at once, margins included; "auto": as large
            as `memory` allows; "whole": never cut.
        margin: Pixels around the part that a tile gives the scores of; rounded up to a multiple
            of 32.
        memory: Gigabytes (10^9 bytes) that a pass may take, by an estimate, before "auto" cuts, and
            that a picture in tiles may take. The smallest possible tile is used even where it does
            not fit.

    Raises:
        UsageError: A negative margin or memory, or a tile no larger than its margins.
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
        elif self.tile < self.smallest:
            raise UsageError(
                f"tile {self.tile}: expected at least {self.smallest} pixels, for a margin of "
                f"{self.margin}"
            )

    @property
    def overlap(self) -> int:
        """Return the margin rounded up to a multiple of `STEP`."""
        return -(-self.margin // STEP) * STEP

    @property
    def smallest(self) -> int:
        """Return the side of the smallest tile that is larger than its margins."""
        return 2 * (self.overlap + STEP)

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that change the scores; none where pictures are never cut."""
        if self.tile == "whole":
            return {}
        memory = {"memory": self.memory} if self.tile == "auto" else {}
        return {"tile": self.tile, "margin": self.margin, **memory}

    def side(self, size: tuple[int, int], seen: float, kept: float) -> int | None:
        """Return the side of the tiles of a picture; None: the picture is not cut.

        Args:
            size: Height and width of the picture.
            seen: Bytes a pixel of a pass.
            kept: Bytes a pixel of the rows of scores that wait to be resized.
        """
        if self.tile == "whole":
            return None
        if isinstance(self.tile, int):
            return None if max(size) <= self.tile else self.tile // STEP * STEP
        budget = self.memory * 1e9
        if size[0] * size[1] * seen <= budget:
            return None
        side = self.smallest
        while True:
            larger = side + STEP
            # Two rows of tiles are in memory where the second begins; the picture's first row of
            # tiles has no margin above it.
            rows = 2 * larger - 3 * self.overlap
            if larger**2 * seen + rows * size[1] * kept > (1 - RESERVED) * budget:
                return side
            side = larger

    def spans(self, length: int, side: int, *, congruent: bool = True) -> list[Span]:
        """Cut an axis into spans, each with a margin except at the border.

        Args:
            length: Pixels of the picture along the axis.
            side: Pixels that a tile sees at most.
            congruent: Let tiles see `length` pixels modulo 32: networks that pad one side more than
                the other choose the side by the remainder. Otherwise tiles that do not end at the
                border see multiples of 32.
        """
        if length <= side:
            return [Span(0, length, 0, length)]
        spans, first, begin = [], 0, 0
        seen = side - (side - length) % STEP if congruent else side // STEP * STEP
        while begin + seen < length:
            last = (begin + seen - self.overlap) // STEP * STEP
            spans.append(Span(first, last, begin, begin + seen))
            first, begin = last, last - self.overlap
        return [*spans, Span(first, length, begin, length)]
