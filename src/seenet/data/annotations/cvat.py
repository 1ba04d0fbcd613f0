"""XML of CVAT for images 1.1."""

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

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


def find(tree: Tree) -> Iterator[Path]:
    """Yield the files of CVAT for images, and of CVAT for video, which are refused when read."""
    return (
        path
        for path in tree.files(".xml")
        if holds(path, b"<annotations") and (holds(path, b"<image ") or holds(path, b"<track "))
    )


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuse what a DOCTYPE can declare: entities that fill the memory, or that read files."""

    def doctype(self, *_: str | None) -> None:
        raise ValueError("a DOCTYPE, which CVAT does not write")


def read(tree: Tree, paths: list[Path], problems: list[DataError]) -> Annotations:
    """Read polygons, boxes and masks of CVAT for images 1.1; classes are in the order of <meta>."""
    names: dict[str, None] = {}
    pictures: list[Annotated] = []
    for path in paths:
        with kept(problems), shaped(path, "XML of CVAT for images 1.1"):
            parser = ElementTree.XMLParser(target=_NoDoctype())
            root = ElementTree.parse(path, parser).getroot()
            if root.find("track") is not None:
                raise DataError(
                    f"{path}: CVAT for video, expected CVAT for images",
                    fix="export it as `CVAT for images 1.1`",
                )
            for label in root.iterfind("./meta//labels/label/name"):
                names[label.text or ""] = None
            for image in root.iterfind("image"):
                with kept(problems):
                    shapes = [shape for child in image for shape in _shapes(path, image, child)]
                    names |= dict.fromkeys(sorted({shape.name for shape in shapes} - names.keys()))
                    size = size_of(image.attrib["height"], image.attrib["width"])
                    # A project's pictures lie in folders named as its subsets.
                    folders = (image.attrib.get("subset", ""), image.attrib["name"])
                    picture = tree.find("/".join(folders), path)
                    pictures.append(Annotated(picture, path, size, shapes))
    return Annotations(list(names), pictures)


def _shapes(path: Path, image: ElementTree.Element, child: ElementTree.Element) -> Iterator[Shape]:
    """Yield the object of an element; none for a tag of the whole picture."""
    get, segmentation = child.attrib, None
    if child.tag == "polygon":
        points = [float(value) for pair in get["points"].split(";") for value in pair.split(",")]
        segmentation = [points]
    elif child.tag == "box":
        left, top, right, bottom = (float(get[side]) for side in ("xtl", "ytl", "xbr", "ybr"))
        x, y, angle = (left + right) / 2, (top + bottom) / 2, float(get.get("rotation", 0))
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        corners = ((left, top), (right, top), (right, bottom), (left, bottom))
        turned = (
            (x + (a - x) * cos - (b - y) * sin, y + (a - x) * sin + (b - y) * cos)
            for a, b in corners
        )
        segmentation = [[value for point in turned for value in point]]
    elif child.tag == "mask":
        counts = [int(count) for count in get["rle"].split(",")]
        box = tuple(int(get[side]) for side in ("left", "top", "width", "height"))
        yield Shape(get["label"], {"box": box, "counts": counts}, layer=int(get.get("z_order", 0)))
    elif child.tag != "tag":
        raise DataError(
            f"{path}: {image.attrib['name'][:200]!r} has a {child.tag[:60]}, "
            "expected polygons, boxes and masks",
            fix="draw it as a polygon, or remove it",
        )
    if segmentation:
        yield Shape(get["label"], segmentation, layer=int(get.get("z_order", 0)))
