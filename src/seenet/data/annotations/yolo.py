"""YOLO's text for segmentation: a line an object, its class and the corners of its outline."""

from collections.abc import Iterator
from pathlib import Path

from seenet.core.errors import DataError, UsageError
from seenet.core.files import read_text
from seenet.core.images import image_size
from seenet.core.recipe_files import read_yaml
from seenet.data.annotations.tree import Annotated, Annotations, Shape, Tree, holds, kept, shaped

LISTS = ("classes.txt", "train.txt", "val.txt", "test.txt")
"""Other text that may lie there."""
REACH = 0.1
"""How far outlines may leave the picture, as a share of its side."""


def find(tree: Tree) -> Iterator[Path]:
    """Yield YOLO's files: text whose first line is a class and at least four numbers, or empty.

    They lie in a folder `labels`, or beside their picture.
    """
    stems = {picture.with_suffix("") for picture in tree.pictures}
    for path in tree.files(".txt"):
        placed = "labels" in path.relative_to(tree.folder).parts[:-1]
        if (placed or path.with_suffix("") in stems) and path.name not in LISTS and _is_yolo(path):
            yield path


def _is_yolo(path: Path) -> bool:
    """Whether the first line of a file is of YOLO's, or the file is empty."""
    with path.open("rb") as stream:
        words = stream.readline(2**20).split()
    try:
        return not words or (words[0].isdigit() and len([float(word) for word in words]) >= 5)
    except ValueError:
        return False


def read(tree: Tree, paths: list[Path], problems: list[DataError]) -> Annotations:
    """Read YOLO's outlines; classes are in the order of data.yaml, classes.txt or obj.names."""
    names = _names(tree)
    pictures: list[Annotated] = []
    most = -1
    for path in paths:
        with kept(problems), shaped(path, "YOLO's lines of a class and corners"):
            picture = _picture(tree, path)
            height, width = image_size(picture)
            shapes = []
            for number, line in enumerate(read_text(path).splitlines(), start=1):
                if not line.strip():
                    continue
                label, points = _line(path, number, line)
                most = max(most, label)
                if names and label >= len(names):
                    raise DataError(
                        f"{path}: line {number} has class {label}, expected 0 to {len(names) - 1}",
                        fix="name it in data.yaml or classes.txt",
                    )
                name = names[label] if names else f"class{label}"
                scaled = [v * (height if place % 2 else width) for place, v in enumerate(points)]
                shapes.append(Shape(name, [scaled]))
            pictures.append(Annotated(picture, path, None, shapes))
    return Annotations(names or [f"class{label}" for label in range(most + 1)], pictures)


def _picture(tree: Tree, path: Path) -> Path:
    """Return the picture of a file; as in Ultralytics, `labels` stands beside `images`."""
    parts = list(path.relative_to(tree.folder).with_suffix("").parts)
    if "labels" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("labels", 1)] = "images"
    stem = tree.folder.joinpath(*parts)
    found = tree.with_stem(stem)
    if not found:
        raise DataError(
            f"{path}: no picture {stem}.*", fix="copy it there, or remove the text", kind="missing"
        )
    if len(found) > 1:
        raise DataError(
            f"{path}: its picture could be {found[0]} or {found[1]}",
            fix=f"name one of them {stem.relative_to(tree.folder)}{found[0].suffix}",
        )
    return found[0]


def _line(path: Path, number: int, line: str) -> tuple[int, list[float]]:
    """Return class and corners of a line."""
    words = line.split()
    label, points = int(words[0]), [float(word) for word in words[1:]]
    if len(points) == 4:
        raise DataError(
            f"{path}: line {number} is a box (class, centre, size), expected an outline",
            fix="this is for detection; export it for segmentation",
        )
    if len(points) < 6 or len(points) % 2 or not 0 <= label < 2**16:
        raise ValueError(f"line {number} of {len(words)} numbers")
    wrong = [value for value in points if not -REACH <= value <= 1 + REACH]
    if wrong:
        raise DataError(
            f"{path}: line {number} has a corner at {wrong[0]:g}, expected shares from 0 to 1",
            fix="divide x by the picture's width and y by its height",
        )
    return label, points


def _names(tree: Tree) -> list[str]:
    """Return the names of the classes; empty if there are none.

    Raises:
        DataError: they are no list, or numbered with gaps.
    """
    for path in tree.files(".yaml", ".yml"):
        if not holds(path, b"names"):
            continue
        try:
            content = read_yaml(read_text(path), str(path))
        except UsageError as error:
            raise DataError(str(error)) from None
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
            names = [names[label] for label in range(len(names))]
        if names is None:
            continue
        if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
            raise DataError(
                f"{path}: names are no list of texts, nor texts by numbers from 0 up",
                fix="write `names: [road, sky]`",
            )
        return [str(name) for name in names]
    for path in [*tree.files(".txt"), *tree.files(".names")]:
        if path.name in {"classes.txt", "obj.names"}:
            return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return []
