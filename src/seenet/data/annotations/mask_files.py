"""Several mask files a picture: one a class, or one an object."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from seenet.core.errors import DataError
from seenet.core.images import image_size
from seenet.data.annotations.tree import Annotated, Annotations, Shape, Tree
from seenet.data.polygons import read_binary

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "pictures", "photos", "jpegimages")
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "gt", "segmentation",
    "groundtruth", "ground_truth",
)  # fmt: skip
NO_CLASS = frozenset(
    (
        *MASK_FOLDERS, "annotator", "color", "colors", "colour", "colours", "expert", "instance",
        "instances", "manual", "overlay", "overlays", "rater", "rgb", "seg", "segmentations",
        "test", "testing", "train", "training", "val", "valid", "validation", "vis",
    )
)  # fmt: skip
"""Words in names of files and folders that name no class."""
OBJECT = "object"
"""Name of the class of objects whose names tell no class."""
SAMPLED = 8
"""Number of mask files that are looked at before files are taken for masks of classes."""

Masks = dict[Path, list[tuple[str, Path]]]
"""Class and path of the masks of each picture."""


def find_objects(tree: Tree) -> Iterator[Path]:
    """Yield the pictures of NAME/images/NAME.png beside NAME/masks/*.png, whatever the folders."""
    yield from _objects(tree)


def read_objects(tree: Tree, paths: list[Path], problems: list[DataError]) -> Annotations:
    """Read one mask file an object, as in the Data Science Bowl 2018; the class is `object`."""
    masks = _objects(tree)
    return _annotations({path: [(OBJECT, mask) for mask in masks[path]] for path in paths})


def _objects(tree: Tree) -> dict[Path, list[Path]]:
    """Return the masks of each picture that is alone in its folder and named as the one above."""
    homes: dict[Path, dict[Path, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in tree.pictures:
        homes[path.parent.parent][path.parent].append(path)
    found = {}
    for home, folders in homes.items():
        if len(folders) != 2:
            continue
        first, second = folders.values()
        named = [files for files in (first, second) if [path.stem for path in files] == [home.name]]
        if len(named) == 1:
            found[named[0][0]] = second if named[0] is first else first
    return found


def find_classes(tree: Tree) -> Iterator[Path]:
    """Yield the pictures that have one mask file a class.

    Masks are CLASS/NAME.png or NAME_CLASS.png, in a folder such as `masks` beside one such as
    `images`. CLASS folders may also lie beside `images`, and NAME_CLASS.png beside NAME.jpg. All
    but class names must agree, some picture has two masks or more, and a sample of the masks is
    black and white.
    """
    yield from _grouped(tree)


def read_classes(tree: Tree, paths: list[Path], problems: list[DataError]) -> Annotations:
    """Read one mask file a class; classes are sorted by name.

    In NAME_CLASS.png words such as `mask`, and numbers, are no part of the class; where nothing
    else is left, the files are objects of the class `object`.
    """
    grouped = _grouped(tree)
    return _annotations({path: grouped[path] for path in paths})


def _annotations(grouped: Masks) -> Annotations:
    names = sorted({name for masks in grouped.values() for name, _ in masks})
    pictures = [
        Annotated(picture, masks[0][1], None, [Shape(name, path) for name, path in masks])
        for picture, masks in grouped.items()
    ]
    return Annotations(names, pictures)


def _grouped(tree: Tree) -> Masks:
    """Group the masks of classes by picture; empty if this is another layout."""
    grouped: Masks = {}
    parts = {tree.folder / name: files for name, files in _children(tree.folder, tree.pictures)}
    for base, files in {tree.folder: tree.pictures, **parts}.items():
        found = _in_folders(base, files) or _by_suffix(base, files)
        if _black_and_white(found) and _apart(found):
            grouped |= found
    return grouped


def _black_and_white(found: Masks) -> bool:
    """Whether a sample of these files are masks of one class each."""
    masks = [path for entry in found.values() for _, path in entry]
    try:
        for path in masks[:: -(-len(masks) // SAMPLED) or 1]:
            read_binary(path, *image_size(path))
    except DataError:
        return False
    return True


def _apart(found: Masks) -> bool:
    """Whether masks of objects lie apart in a sample: those of several annotators do not."""
    pairs = [
        (first, second)
        for (name, first), (_, second), *_ in (masks for masks in found.values() if len(masks) > 1)
        if name == OBJECT
    ]
    shares = []
    for pair in pairs[:: -(-len(pairs) // SAMPLED) or 1]:
        first, second = (read_binary(path, *image_size(pair[0])) for path in pair)
        shares.append((first & second).sum() / max(min(first.sum(), second.sum()), 1))
    return not shares or sum(shares) / len(shares) < 0.5


def _in_folders(base: Path, files: list[Path]) -> Masks:
    """Group CLASS/NAME.png, in a folder of masks, or where there is none beside the pictures'."""
    children = dict(_children(base, files))
    images = _images(base, files)
    homes = {name: found for name, found in children.items() if name.lower() in MASK_FOLDERS}
    for home, below in homes.items() if homes else [("", files)]:
        classes: dict[str, dict[str, Path]] = {}
        for name, found in _children(base / home, below):
            words = set(re.split(r"[\W\d_]+", name.lower()))
            if not home and (name.lower() in IMAGE_FOLDERS or words & NO_CLASS):
                continue
            stems = {_stem(base / home / name, path): path for path in found}
            if stems.keys() <= images.keys():
                classes[_class_of(name)] = stems
            elif home:
                classes = {}
                break
        if len(classes) > 1 and "" not in classes:
            return _by_picture(
                (images[stem], name, path)
                for name, stems in sorted(classes.items())
                for stem, path in stems.items()
            )
    return {}


def _by_suffix(base: Path, files: list[Path]) -> Masks:
    """Group NAME_CLASS.png, in a folder of masks or beside the pictures."""
    children = dict(_children(base, files))
    images = _images(base, files)
    homes = {name: found for name, found in children.items() if name.lower() in MASK_FOLDERS}
    for name, below in homes.items():
        found = [(_named(_stem(base / name, path), images, longest=True), path) for path in below]
        if all(named for named, _ in found):
            return _several(images, found)
    if homes or base.name.lower() in (*IMAGE_FOLDERS, *MASK_FOLDERS):
        return {}
    beside = {_stem(base, path): path for path in files}
    found = [(_named(stem, beside, longest=False), path) for stem, path in beside.items()]
    return _several(beside, [(named, path) for named, path in found if named])


def _several(images: dict[str, Path], found: list[tuple[tuple[str, str] | None, Path]]) -> Masks:
    """Group masks by picture, if one has two; those without a class are objects, if all are."""
    triples = [(images[named[0]], named[1], path) for named, path in found if named]
    names = {name for _, name, _ in triples}
    if "" in names and len(names) > 1:
        return {}
    grouped = _by_picture((image, name or OBJECT, path) for image, name, path in triples)
    return grouped if max(map(len, grouped.values()), default=0) > 1 else {}


def _by_picture(triples: Iterator[tuple[Path, str, Path]]) -> Masks:
    grouped: Masks = defaultdict(list)
    for picture, name, path in triples:
        grouped[picture].append((name, path))
    return dict(sorted(grouped.items()))


def _named(stem: str, images: dict[str, Path], *, longest: bool) -> tuple[str, str] | None:
    """Split the stem of a mask into that of its picture and its class."""
    ends = [place for place, sign in enumerate(stem) if sign in "_-. "]
    for end in reversed(ends) if longest else ends:
        if stem[:end] in images:
            return stem[:end], _class_of(stem[end + 1 :])
    return None


def _class_of(name: str) -> str:
    """Return the words of a name that are neither numbers nor in NO_CLASS."""
    words = [(word, word.rstrip("0123456789").lower()) for word in re.split(r"[\s._-]+", name)]
    return "_".join(word for word, plain in words if plain and plain not in NO_CLASS)


def _images(base: Path, files: list[Path]) -> dict[str, Path]:
    """Return pictures by path without suffix, in a folder such as `images`, else in `base`."""
    for name, found in _children(base, files):
        if name.lower() in IMAGE_FOLDERS:
            return {_stem(base / name, path): path for path in found}
    return {path.stem: path for path in files if path.parent == base}


def _children(base: Path, files: list[Path]) -> Iterable[tuple[str, list[Path]]]:
    """Group files below a folder by its subfolders."""
    children: dict[str, list[Path]] = defaultdict(list)
    depth = len(base.parts)
    for path in files:
        if len(path.parts) > depth + 1:
            children[path.parts[depth]].append(path)
    return children.items()


def _stem(home: Path, path: Path) -> str:
    return path.relative_to(home).with_suffix("").as_posix()
