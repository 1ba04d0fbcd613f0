"""COCO's instances, of any categories."""

import json
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

KEYS = (b'"images"', b'"annotations"', b'"categories"')


def find(tree: Tree) -> Iterator[Path]:
    """Yield the files of COCO's instances; of several kinds those named instances_*."""
    paths = tree.files(".json")
    named = [path for path in paths if path.name.startswith("instances")]
    for path in named or paths:
        with path.open("rb") as stream:
            # Most other JSON, which may be long, is known by its start.
            head = stream.read(4096)
        if any(key in head for key in KEYS) and holds(path, *KEYS):
            yield path


def read(tree: Tree, paths: list[Path], problems: list[DataError]) -> Annotations:
    """Read COCO's instances; classes are in the order of the category ids.

    A category without instances that is the supercategory of another is no class (Roboflow's
    exports have one).
    """
    names: dict[int, str] = {}
    groups: set[str] = set()
    used: set[int] = set()
    pictures: list[Annotated] = []
    for path in paths:
        with kept(problems), shaped(path, "COCO's images, annotations and categories"):
            content = json.loads(path.read_bytes())
            for category in content["categories"]:
                label, name = int(category["id"]), str(category["name"])
                if names.setdefault(label, name) != name:
                    other = names[label][:60]
                    raise DataError(
                        f"{path}: category {label} is {name[:60]!r}, in another file {other!r}",
                        fix="number the categories alike in all files",
                    )
                if category.get("supercategory") != name:
                    groups.add(str(category.get("supercategory")))
            shapes: dict[Any, list[Shape]] = {image["id"]: [] for image in content["images"]}
            if len(shapes) != len(content["images"]):
                raise DataError(f"{path}: two pictures share an id", fix="export it again")
            for entry in content["annotations"]:
                label = int(entry["category_id"])
                used.add(label)
                segmentation = entry.get("segmentation")
                if isinstance(segmentation, list) and segmentation:
                    flat = isinstance(segmentation[0], int | float)
                    segmentation = [segmentation] if flat else segmentation
                crowd = bool(entry.get("iscrowd", 0))
                shapes[entry["image_id"]].append(Shape(names[label], segmentation, crowd))
            for image in content["images"]:
                size = size_of(image.get("height"), image.get("width"))
                with kept(problems):
                    picture = tree.find(image["file_name"], path)
                    pictures.append(Annotated(picture, path, size, shapes[image["id"]]))
    ids = [label for label in sorted(names) if label in used or names[label] not in groups]
    return Annotations([names[label] for label in ids], pictures)
