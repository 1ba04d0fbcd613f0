"""Read mask files as class ids, as a `seenet.yaml` declares them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from seenet.core.errors import DataError
from seenet.core.images import read_channel, read_colours, read_ids, whole_numbers
from seenet.core.raster import opened_raster, stored_alike

Decode = Literal["index", "palette", "rgb", "remap", "threshold", "nearest"]
Colour = tuple[int, int, int]
FEW_COLOURS = 8
"""Up to so many unknown colours may be drawn on purpose; more come from blending."""


def packed(colours: np.ndarray) -> np.ndarray:
    """Pack H x W x 3 colours into H x W integers, red first."""
    wide = colours.astype(np.int32)
    result: np.ndarray = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return result


def pack(colour: Sequence[int]) -> int:
    """Return the integer of `packed` for one colour."""
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def unpacked(value: int) -> Colour:
    """Return the colour of an integer of `packed`."""
    return value >> 16, value >> 8 & 255, value & 255


@dataclass(frozen=True)
class MaskReader:
    """Reader of mask files; called with a path, it returns H x W class ids.

    Attributes:
        decode: content of the files.
        colours: class id of each colour, for `rgb`.
        table: class id of each value, for `remap` and `nearest`.
        others: class id of the values that `remap` does not list; None: they are an error.
        threshold: smallest value of class 1, for `threshold`.
        tolerance: largest difference of each channel to the nearest colour, for `rgb`.
        channel: the channel of a colour file that holds the values; None: the file has one.
        upright: whether masks are rotated by their EXIF tag.
    """

    decode: Decode
    colours: dict[Colour, int] = field(default_factory=dict)
    table: dict[int, int] = field(default_factory=dict)
    others: int | None = None
    threshold: int = 128
    tolerance: int = 0
    channel: str | None = None
    upright: bool = True

    def __call__(self, path: Path) -> np.ndarray:
        """Read a mask.

        Returns:
            H x W class ids: uint8, or int32 where ids need it.

        Raises:
            DataError: the file cannot be read, or holds a value or colour of no class.
        """
        return self.decoded(path)[0]

    def decoded(self, path: Path) -> tuple[np.ndarray, int]:
        """Read a mask as a call does; also return how many of its pixels were not exact.

        These are pixels whose value or colour is none of those that the classes have, and that
        `threshold`, `nearest` or `tolerance` gave to the nearest one.
        """
        if self.decode == "rgb":
            values = packed(read_colours(path, upright=self.upright))
        elif self.channel is None:
            values = read_ids(path, upright=self.upright)
        else:
            values = read_channel(path, self.channel, upright=self.upright)
        return self._labels(values, path)

    def part(self, path: Path, rows: slice, columns: slice) -> np.ndarray:
        """Read a part of a mask, as a call does; of large TIFFs only this part is decoded.

        Raises:
            DataError: as a call, for what the part holds.
        """
        bands = 3 if self.decode == "rgb" else 1
        if self.channel is not None or not stored_alike(path, bands):
            return self(path)[rows, columns]
        with opened_raster(path, range(1, bands + 1), lambda values, _: values) as mask:
            stored = mask[rows, columns]
        values = packed(stored) if bands == 3 else whole_numbers(stored[..., 0], path)
        return self._labels(values, path)[0]

    def _labels(self, values: np.ndarray, path: Path) -> tuple[np.ndarray, int]:
        """Return the class of each id or packed colour, and how many were not exact."""
        if self.decode == "rgb":
            return self._from_colours(values, path)
        if self.decode == "threshold":
            ids = (values >= self.threshold).astype(np.uint8)
            return ids, int(np.sum((values != values.min()) & (values != values.max())))
        if self.decode == "nearest":
            return self._nearest(values)
        if self.decode == "remap":
            return self._remapped(values, path), 0
        return values, 0

    def _nearest(self, values: np.ndarray) -> tuple[np.ndarray, int]:
        """Give each value the class of the nearest value of the table, of two to the lower one."""
        keys, targets = _sorted(self.table)
        middles = (keys[:-1] + keys[1:]) / 2
        position = np.searchsorted(middles, values)
        return targets[position], int(np.sum(keys[position] != values))

    def _remapped(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Replace each value by its class id.

        Raises:
            DataError: a value has none, and `others` is None.
        """
        ids, missing = _look_up(values, self.table, self.others or 0)
        if self.others is not None or not missing.any():
            return ids
        found, counts = np.unique(values[missing], return_counts=True)
        total = int(counts.sum())
        more = f", nor have {len(found) - 1} others ({total} in all)" if len(found) > 1 else ""
        raise DataError(
            f"{path}: id {found[0]} ({counts[0]} pixels) has no entry in remap{more}",
            fix="add it, or set `remap_others: ignore`",
            kind="no-entry",
            pixels=total,
        )

    def _from_colours(self, values: np.ndarray, path: Path) -> tuple[np.ndarray, int]:
        """Replace each packed colour by its class id.

        Raises:
            DataError: a colour is further than `tolerance` from that of each class.
        """
        table = {pack(colour): label for colour, label in self.colours.items()}
        ids, missing = _look_up(values, table, 0)
        inexact = int(missing.sum())
        if inexact and self.tolerance:
            unknown, position = np.unique(values[missing], return_inverse=True)
            near, fits = self._nearest_colours(unknown)
            ids[missing] = near[position]
            missing[missing] = ~fits[position]
        if missing.any():
            raise _unknown_colours(path, values[missing])
        return ids, inexact

    def _nearest_colours(self, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the class of the nearest colour of each packed one, and whether it is near."""
        own = np.array(list(self.colours), np.int32)
        others = np.stack([unknown >> 16, unknown >> 8 & 255, unknown & 255], 1)
        best = np.zeros(len(others), np.int64)
        distance = np.full(len(others), 256)
        for index, colour in enumerate(own):
            difference = np.abs(others - colour).max(1)
            best[difference < distance] = index
            distance = np.minimum(distance, difference)
        return np.array(list(self.colours.values()))[best], distance <= self.tolerance


def remap_line(table: dict[int, int]) -> str:
    """Return a table of ids as the line `remap: {...}` of a `seenet.yaml`."""
    return f"remap: {{{', '.join(f'{label}: {table[label]}' for label in sorted(table))}}}"


def _sorted(table: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted keys of a table, and their entries: uint8 where they fit."""
    keys = np.array(sorted(table))
    small = all(0 <= target < 256 for target in table.values())
    targets = np.array([table[key] for key in keys.tolist()], np.uint8 if small else np.int32)
    return keys, targets


def _look_up(
    values: np.ndarray, table: dict[int, int], others: int
) -> tuple[np.ndarray, np.ndarray]:
    """Replace each value by its entry, or by `others`; also return where there is no entry."""
    keys, targets = _sorted(table)
    position = np.searchsorted(keys, values).clip(max=len(keys) - 1)
    missing = keys[position] != values
    found = targets[position]
    if missing.any():
        if not 0 <= others < 256:
            found = found.astype(np.int32)
        found[missing] = others
    return found, missing


def _unknown_colours(path: Path, values: np.ndarray) -> DataError:
    """Return the error for packed colours that belong to no class."""
    found, counts = np.unique(values, return_counts=True)
    total, kinds = int(counts.sum()), len(found)
    more = f", nor do {kinds - 1} others ({total} in all)" if kinds > 1 else ""
    fix = "add it to classes or ignore_colours"
    if kinds > FEW_COLOURS:
        fix = (
            "they come from blending or JPEG: set `tolerance: 64`, or save it again from its "
            "source as PNG, resized with nearest neighbour"
        )
    first = list(unpacked(int(found[0])))
    return DataError(
        f"{path}: colour {first} ({counts[0]} pixels) belongs to no class{more}",
        fix=fix,
        kind="ids",
        pixels=total,
    )
