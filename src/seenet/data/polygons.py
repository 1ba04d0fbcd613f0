"""Draw outlines and run-length encodings (RLE) as masks of class ids, by pycocotools.

The only rasteriser of the package: COCO's masks and those of `seenet data convert` are drawn here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from seenet.core.errors import DataError, UsageError
from seenet.core.images import read_colours, read_header, read_ids
from seenet.core.labels import IGNORE

Overlap = Literal["ignore", "smallest-on-top"]

FURTHEST = 10
"""Limit of the distance of outline corners from the image, in multiples of its longer side.

pycocotools draws every step of an edge before it clips.
"""
LONGEST = 10_000_000
"""Limit of the length of all outlines of an instance in pixels, for the same reason."""
GREY_SHARE = 0.02
"""Share of pixels between dark and bright that the mask file of one class may have."""


class Instance(NamedTuple):
    """An object to draw.

    Attributes:
        label: class id.
        crowd: whether its pixels are ignored where no other instance lies over them.
        segmentation: as `encode` takes it.
        layer: instances of higher layers lie over all of lower ones.
    """

    label: int
    crowd: bool
    segmentation: Any
    layer: int = 0


def draw(
    instances: Sequence[Instance],
    height: int,
    width: int,
    overlap: Overlap = "smallest-on-top",
    ignore: int = IGNORE,
) -> tuple[np.ndarray, int]:
    """Draw instances as a mask of class ids; pixels of none are 0.

    A crowd is `ignore` where no instance lies over it. Pixels of two classes are `ignore`, or
    belong to the instance of the highest layer; within a layer to that with the fewest pixels, of
    equal ones to the later (`smallest-on-top`).

    Args:
        instances: what to draw, in the order of the file.
        height, width: size of the mask.
        overlap: rule for pixels of two classes.
        ignore: id of pixels that are not scored.

    Returns:
        height x width, uint8 if `ignore` is below 256, else uint16; and the number of pixels that
        belong to instances of two or more classes.

    Raises:
        ValueError: an invalid segmentation.
        DataError: a mask file that cannot be read.
        UsageError: pycocotools is not installed.
    """
    tools = _tools()
    mask = np.zeros((height, width), np.uint8 if ignore < 256 else np.uint16, order="F")
    encoded = [(one, encode(one.segmentation, height, width)) for one in instances]
    single = [(one, rle) for one, rle in encoded if not one.crowd]
    crowds = [rle for one, rle in encoded if one.crowd]
    if crowds:
        mask[_union(tools, crowds)] = ignore
    covered, twice = np.zeros((2, width, height), bool).transpose(0, 2, 1)
    for label in sorted({one.label for one, _ in single}):
        pixels = _union(tools, [rle for one, rle in single if one.label == label])
        mask[pixels] = label
        twice |= covered & pixels
        covered |= pixels
    overlapped = int(twice.sum())
    if overlap == "ignore":
        mask[twice] = ignore
    elif overlapped:
        # Stable: of equal ones the later is drawn last.
        for one, rle in sorted(single, key=lambda entry: _rank(tools, *entry)):
            mask[_union(tools, [rle])] = one.label
    return np.ascontiguousarray(mask), overlapped


def encode(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Encode an instance as a compressed RLE.

    Everything is checked before: pycocotools checks nothing, and returns uninitialised memory if
    the run lengths are too short.

    Args:
        segmentation: outlines [[x, y, x, y, ...], ...], of which the union is drawn; COCO's RLE
            {"size", "counts"}, by columns, compressed or not; CVAT's RLE {"box", "counts"}, by
            rows inside left, top, width, height; or the path of a mask file of one class.
        height, width: size of the mask.

    Raises:
        ValueError: an invalid segmentation.
        DataError: a mask file that cannot be read, or has another size or over two values.
        UsageError: pycocotools is not installed.
    """
    tools = _tools()
    if isinstance(segmentation, Path):
        return _encode_pixels(tools, read_binary(segmentation, height, width))
    if isinstance(segmentation, list):
        _check_outlines(segmentation, FURTHEST * max(height, width))
        return dict(tools.merge(tools.frPyObjects(segmentation, height, width)))
    if isinstance(segmentation, dict) and "box" in segmentation:
        return _encode_pixels(tools, _paste(**segmentation, height=height, width=width))
    if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        raise ValueError(
            f"a segmentation is neither outlines nor run lengths of size [{height}, {width}]"
        )
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = run_lengths(counts)
    _check_counts(counts, height * width, "a picture")
    return dict(tools.frPyObjects({"size": [height, width], "counts": counts}, height, width))


def run_lengths(text: str) -> list[int]:
    """Decode COCO's compressed run lengths (maskApi.c, rleFrString).

    A character has 5 bits of a number, lowest first; bit 6 marks that more follow. From the fourth
    number on, it is the difference to the number two before.

    Raises:
        ValueError: other characters, or a number that is too long or has no end.
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


def read_binary(path: Path, height: int, width: int) -> np.ndarray:
    """Read a mask file of one class or one instance: height x width bool.

    Of two values the brighter is the object; a single value is the object unless it is 0. Of more
    values it is the brighter half of the range, if all but 2 % of the pixels are dark or bright.

    Raises:
        DataError: the file cannot be read, or has another size or further values.
    """
    # A palette is looked up, since files may number the same two colours differently.
    if read_header(path).mode in {"RGB", "RGBA", "P"}:
        values = read_colours(path).max(axis=2)
    else:
        values = read_ids(path)
    if values.shape != (height, width):
        raise DataError(
            f"{path}: {values.shape[0]} x {values.shape[1]} pixels, "
            f"but its picture has {height} x {width}",
            fix="resize the mask with nearest neighbour",
            kind="size",
        )
    least, most = int(values.min()), int(values.max())
    if least == most:
        return np.full((height, width), most != 0)
    if ((values == least) | (values == most)).all():
        return np.asarray(values == most)
    top = 255 if most < 256 else 65535
    if np.mean((values > top // 4) & (values < top - top // 4)) > GREY_SHARE:
        raise DataError(
            f"{path}: {len(np.unique(values))} values, expected two: a mask of one object or class",
            fix="save it as black and white",
            kind="mask-kind",
        )
    return np.asarray(values > top // 2)


def _tools() -> Any:
    try:
        from pycocotools import mask as tools
    except ImportError:
        raise UsageError(
            "outlines and run lengths are drawn by pycocotools, which is not installed; "
            "pip install 'seenet[coco]'"
        ) from None
    return tools


def _rank(tools: Any, instance: Instance, rle: dict[str, Any]) -> tuple[int, int]:
    """Return the place in the order of drawing: the last lies on top."""
    return instance.layer, -int(tools.area(rle))


def _union(tools: Any, encoded: list[dict[str, Any]]) -> np.ndarray:
    """Decode the union of RLEs: height x width bool."""
    pixels: np.ndarray = tools.decode(tools.merge(encoded)).astype(bool)
    return pixels


def _encode_pixels(tools: Any, pixels: np.ndarray) -> dict[str, Any]:
    """Encode height x width bool."""
    return dict(tools.encode(np.asfortranarray(pixels, np.uint8)))


def _paste(counts: Any, box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """Decode run lengths by rows inside a box: height x width bool."""
    left, top, columns, rows = box
    if not (0 <= left < left + columns <= width and 0 <= top < top + rows <= height):
        raise ValueError(
            f"a mask of {columns} x {rows} pixels at {left}, {top}, "
            f"outside the picture of {width} x {height}"
        )
    _check_counts(counts, columns * rows, "a mask")
    runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    pixels = np.zeros((height, width), bool)
    pixels[top : top + rows, left : left + columns] = runs.reshape(rows, columns)
    return pixels


def _check_counts(counts: Any, total: int, what: str) -> None:
    if not isinstance(counts, list) or not all(
        isinstance(count, int) and count >= 0 for count in counts
    ):
        raise ValueError("run lengths that are no whole numbers from 0 up")
    if sum(counts) != total:
        raise ValueError(f"run lengths of {_shown(sum(counts))} pixels for {what} of {total}")


def _shown(value: Any) -> str:
    """Return a value for a message; numbers of over 4,300 digits have no decimal text."""
    return "10^15 or more" if isinstance(value, int) and abs(value) >= 10**15 else repr(value)[:60]


def _check_outlines(outlines: list[Any], furthest: float) -> None:
    if not outlines:
        raise ValueError("a segmentation without outlines")
    values = 0
    for outline in outlines:
        if not isinstance(outline, list) or len(outline) < 6 or len(outline) % 2:
            raise ValueError("an outline that is no list of at least three corners x, y")
        for value in outline:
            # NaN fails the comparison too.
            if not isinstance(value, int | float) or not -furthest <= value <= furthest:
                raise ValueError(f"an outline with a corner at {_shown(value)}")
        values += len(outline)
    # An edge has two values and at most twice that length: most outlines need no sum.
    if values * furthest <= LONGEST:
        return
    corners = [np.array(outline, float).reshape(-1, 2) for outline in outlines]
    length = sum(np.abs(one - np.roll(one, 1, axis=0)).max(axis=1).sum() for one in corners)
    if length > LONGEST:
        raise ValueError(f"outlines of {length:.0f} pixels in length, expected at most {LONGEST}")
