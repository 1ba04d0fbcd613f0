"""Labelme's JSON, a file a picture."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seenet.core.errors import DataError
from seenet.data.annotations.tree import (
    Annotated,
    Annotations,
    Shape,
    Tree,
    holds,
    kept,
    shaped,
    size_of,
)

IGNORED_CLASS = "__ignore__"
"""Labelme's name for what is not scored."""
ARC = 2.0
"""Length of the edges that a circle is drawn with, in pixels."""
FEWEST_EDGES, MOST_EDGES = 32, 4096


def find(tree: Tree) -> Iterator[Path]:
    """Yield Labelme's files, one a picture."""
    return (path for path in tree.files(".json") if holds(path, b'"shapes"', b'"imagePath"'))


def read(tree: Tree, paths: list[Path], problems: list[DataError]) -> Annotations:
    """Read Labelme's polygons, rectangles and circles; classes are sorted by name.

    `__ignore__` is not scored where no other object lies over it.
    """
    pictures: list[Annotated] = []
    for path in paths:
        with kept(problems), shaped(path, "Labelme's shapes and imagePath"):
            content = json.loads(path.read_bytes())
            shapes = [
                Shape(str(shape["label"]), _outlines(path, shape),
                      shape["label"] == IGNORED_CLASS)
                for shape in content["shapes"]
            ]  # fmt: skip
            size = size_of(content.get("imageHeight"), content.get("imageWidth"))
            try:
                picture = tree.find(content["imagePath"], path)
            except DataError:
                # Labelme's own files are named as their pictures, which may have been renamed.
                beside = tree.with_stem(path.with_suffix(""))
                if len(beside) != 1:
                    raise
                picture = beside[0]
            pictures.append(Annotated(picture, path, size, shapes))
    names = {shape.name for entry in pictures for shape in entry.shapes if not shape.crowd}
    return Annotations(sorted(names), pictures)


def _outlines(path: Path, shape: dict[str, Any]) -> list[list[float]]:
    points = [(float(x), float(y)) for x, y in shape["points"]]
    kind = shape.get("shape_type") or "polygon"
    if kind == "polygon" or (kind == "rectangle" and len(points) == 4):
        return [[value for point in points for value in point]]
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        return [[left, top, right, top, right, bottom, left, bottom]]
    if kind == "circle" and len(points) == 2:
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        # The comparison comes first: what is infinite or no number becomes no integer.
        wanted = radius * math.tau / ARC if radius < MOST_EDGES * ARC / math.tau else MOST_EDGES
        count = max(int(wanted), FEWEST_EDGES)
        angles = [math.tau * step / count for step in range(count)]
        return [
            [
                value
                for a in angles
                for value in (x + radius * math.cos(a), y + radius * math.sin(a))
            ]
        ]
    what = " ".join(str(kind).split())[:60]
    raise DataError(
        f"{path}: {str(shape['label'])[:60]!r} is a {what} of {len(points)} points, "
        "expected a polygon, a rectangle or a circle",
        fix="draw it as a polygon, or remove it",
    )
