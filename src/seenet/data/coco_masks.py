"""One picture's COCO instances as a mask of VOC's classes; outlines and run lengths are decoded by pycocotools."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from seenet.core.errors import UsageError
from seenet.core.labels import IGNORE

Overlap = Literal["ignore", "smallest-on-top"]

FURTHEST = 10
"""Corners of an outline may lie outside the picture, but not by more than so many of its longer sides: pycocotools draws every step of
an edge before it cuts."""


@dataclass(frozen=True)
class Instance:
    """One annotation: VOC class 1 to 20, whether it is a crowd, and COCO's `segmentation` (outlines or run lengths)."""

    label: int
    crowd: bool
    segmentation: Any


def draw(instances: list[Instance], height: int, width: int, overlap: Overlap) -> np.ndarray:
    """height x width uint8: classes 1 to 20, background 0, 255 where it is not scored.

    Crowds are 255 where no instance lies over them. Pixels of two classes are 255, or belong to the instance with the fewest pixels
    (of equal ones to the later).
    Raises ValueError, in one line, for a segmentation that is none; UsageError without pycocotools.
    """
    tools = _pycocotools()
    mask = np.zeros((height, width), np.uint8)
    encoded = [(one, _encode(tools, one.segmentation, height, width)) for one in instances]
    crowds = [rle for one, rle in encoded if one.crowd]
    if crowds:
        mask[_pixels(tools, crowds)] = IGNORE
    if overlap == "smallest-on-top":
        single = [(int(tools.area(rle)), one.label, rle) for one, rle in encoded if not one.crowd]
        for _, label, rle in sorted(single, key=lambda entry: -entry[0]):
            mask[_pixels(tools, [rle])] = label
        return mask
    taken, twice = np.zeros((2, height, width), bool)
    for label in sorted({one.label for one, _ in encoded if not one.crowd}):
        pixels = _pixels(tools, [rle for one, rle in encoded if one.label == label and not one.crowd])
        mask[pixels] = label
        twice |= taken & pixels
        taken |= pixels
    mask[twice] = IGNORE
    return mask


def _pixels(tools: Any, encoded: list[dict[str, Any]]) -> np.ndarray:
    """height x width bool: the pixels of any of them."""
    pixels: np.ndarray = tools.decode(tools.merge(encoded)).astype(bool)
    return pixels


def _encode(tools: Any, segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Compressed run lengths of outlines (their union) or run lengths.

    Everything is checked before: pycocotools reads what it is given as it comes, and leaves memory as it found it where the run lengths
    stop too early.
    """
    if isinstance(segmentation, list):
        _check_outlines(segmentation, FURTHEST * max(height, width))
        return dict(tools.merge(tools.frPyObjects(segmentation, height, width)))
    if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        raise ValueError(f"a segmentation is neither outlines nor run lengths of size [{height}, {width}]")
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _run_lengths(counts)
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError("run lengths that are no whole numbers from 0 up")
    if sum(counts) != height * width:
        raise ValueError(f"run lengths of {sum(counts)} pixels for a picture of {height * width}")
    return dict(tools.frPyObjects({"size": [height, width], "counts": counts}, height, width))


def _check_outlines(outlines: list[Any], furthest: float) -> None:
    if not outlines:
        raise ValueError("a segmentation without outlines")
    for outline in outlines:
        if not isinstance(outline, list) or len(outline) < 6 or len(outline) % 2:
            raise ValueError("an outline that is no list of at least three corners x, y")
        for value in outline:
            if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > furthest:
                raise ValueError(f"an outline with a corner at {value!r}"[:80])


def _run_lengths(text: str) -> list[int]:
    """COCO's compressed run lengths (maskApi.c, rleFrString): 5 bits a character from the lowest up, bit 6 says that more follow; from
    the fourth on the difference to the one before the last.
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


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError:
        raise UsageError("data.kind=coco: pycocotools is not installed; pip install 'seenet[coco]'") from None
    return mask
