"""Write polygons, and several masks a picture, as one mask a picture (`seenet data convert`)."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from seenet.core.errors import DataError, UsageError
from seenet.core.files import write_text, writing_to
from seenet.core.images import read_header, write_mask
from seenet.core.labels import IGNORE, LabelSet, voc_colours
from seenet.core.progress import track
from seenet.data.annotations import FORMATS, Format, Tree, find_formats
from seenet.data.annotations import find_unsupported as name_unsupported
from seenet.data.annotations.tree import OUT, Annotated, Annotations, kept
from seenet.data.polygons import Instance, draw
from seenet.data.split import need_folder, size_mismatch

CLASSES = "classes.txt"
BACKGROUND = "background"
MOST_CLASSES = 65_535
SHOWN = 20
"""Number of errors that are named at once; missing pictures are all named."""
HINT = "expected a folder with pictures and annotations"


@dataclass(frozen=True)
class Converted:
    """Result of `convert`.

    Attributes:
        format: name of the annotations' format.
        out: folder of the masks and of classes.txt.
        images: the pictures' folder, relative to that of the data; "." is that itself.
        pictures: the pictures with masks, relative to `images`; the mask of a/b.jpg is a/b.png.
        classes: names in the order of the ids.
        ignore: id of pixels that are not scored.
        unlabelled: number of pictures in `images` that are not annotated and got no mask.
        overlapped: number of pixels that lay in objects of two classes or more.
    """

    format: str
    out: Path
    images: str
    pictures: tuple[str, ...]
    classes: tuple[str, ...]
    ignore: int
    unlabelled: int
    overlapped: int

    @property
    def masks(self) -> int:
        return len(self.pictures)

    def text(self) -> str:
        """Describe the result in a few lines."""
        some = ", ".join(self.classes[:SHOWN]) + (", ..." if len(self.classes) > SHOWN else "")
        lines = [
            f"{self.format}: {self.masks} masks of {len(self.classes)} classes ({some})",
            f"written: {self.out}, for the pictures in {self.images}",
        ]
        if self.unlabelled:
            lines.append(f"left out: pictures without annotation: {self.unlabelled}")
        if self.overlapped:
            lines.append(
                f"overlaps: pixels of two classes, the smaller object on top: {self.overlapped}"
            )
        return "\n".join(lines)


def find_annotations(folder: Path) -> str | None:
    """Return the format of the annotations in a folder, as `convert` names it; None if none."""
    return next(iter(find_formats(Tree(folder))), None)


def find_unsupported(folder: Path) -> str | None:
    """Return what a folder has of a format that is known but not read; None if nothing."""
    return name_unsupported(Tree(folder))


def convert(folder: Path, out: Path) -> Converted:
    """Draw the annotations of a folder as palette PNGs below `out`, and write classes.txt there.

    A mask has its picture's path relative to the folder that all pictures share, so that splits
    stay. Class 0 is `background`, for pixels without annotation; if the format has a class of that
    name (`_background_` too), that one is class 0. The other classes follow in the order of the
    format. Of two overlapping objects that of the higher layer (CVAT's z_order) is on top; within
    a layer that with fewer pixels, of equal ones the later. COCO's crowds, and Labelme's
    `__ignore__`, are the ignored id where no object lies over them. Pictures that COCO, CVAT or
    YOLO lists without objects are all background; other pictures without annotation are left out.

    Raises:
        DataError: `out` exists; there are no annotations, or two formats; files, sizes or outlines
            are wrong; pictures are missing. `out` is complete or absent.
        UsageError: pycocotools is not installed.
    """
    need_folder(folder, HINT)
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out}: exists already", fix="move it away, or give another --out")
    tree = Tree(folder)
    name, reader = _one_format(tree)
    problems: list[DataError] = []
    found = reader.read(tree, list(reader.find(tree)), problems)
    _raise_all(problems)
    if not found.pictures:
        raise DataError(f"{folder}: annotations of {name} list no pictures", fix=HINT)
    labels, ids = _label_set(found.classes)
    home = Path(os.path.commonpath([entry.picture.parent for entry in found.pictures]))
    masks = _mask_names(found.pictures, home)
    with writing_to(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{OUT}.", dir=out.parent))
        try:
            overlapped = _write(found, masks, labels, ids, part)
            write_text(part / CLASSES, "".join(f"{name}\n" for name in labels.classes))
            part.chmod(0o755)
            if out.is_dir():
                out.rmdir()
            part.replace(out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    used = {path for entry in found.pictures for path in _mask_files(entry)}
    others = [path for path in tree.pictures if home in path.parents and path not in used]
    return Converted(
        name,
        out,
        home.relative_to(folder).as_posix(),
        tuple(entry.picture.relative_to(home).as_posix() for entry in found.pictures),
        labels.classes,
        labels.ignore,
        len(others) - len(found.pictures),
        overlapped,
    )


def _one_format(tree: Tree) -> tuple[str, Format]:
    found = find_formats(tree)
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        files = [f"{name} ({next(one.find(tree))})" for name, one in found.items()]
        raise DataError(
            f"{tree.folder}: annotations of two formats, {' and '.join(files)}",
            fix="move those away that are not to be used",
        )
    if unsupported := name_unsupported(tree):
        raise DataError(f"{tree.folder}: {unsupported} are not read", fix="convert to masks")
    raise DataError(
        f"{tree.folder}: found no annotations, expected {', '.join(FORMATS)}, a mask file a class "
        "(masks/CLASS/NAME.png, NAME_CLASS.png), or one an object (NAME/masks/*.png)",
        fix="name the folder that holds pictures and annotations",
    )


def _label_set(names: list[str]) -> tuple[LabelSet, dict[str, int]]:
    """Return the classes, and the id of each of the format's names."""
    clean = {name: " ".join(name.split()) for name in names}
    if "" in clean.values():
        raise DataError("a class without a name", fix="name it in the annotations")
    background = next(
        (name for name in clean.values() if name.strip("_").lower() == BACKGROUND), BACKGROUND
    )
    classes = tuple(dict.fromkeys([background, *clean.values()]))
    if len(classes) > MOST_CLASSES:
        raise DataError(f"{len(classes)} classes, expected at most {MOST_CLASSES}")
    ignore = IGNORE if len(classes) <= IGNORE else MOST_CLASSES
    labels = LabelSet("converted", classes, voc_colours(len(classes)), ignore)
    return labels, {name: classes.index(text) for name, text in clean.items()}


def _mask_names(pictures: list[Annotated], home: Path) -> list[Path]:
    """Return the path of each picture's mask, relative to the folder of masks."""
    owners: dict[Path, Annotated] = {}
    for entry in pictures:
        name = entry.picture.relative_to(home).with_suffix(".png")
        other = owners.setdefault(name, entry)
        if other is entry:
            continue
        if other.picture == entry.picture:
            raise DataError(
                f"{entry.picture}: annotated in {other.source} and again in {entry.source}",
                fix="leave one of them there",
            )
        raise DataError(
            f"{entry.picture}: shares its name with {other.picture.name}", fix="rename one of them"
        )
    return list(owners)


def _write(
    found: Annotations, masks: list[Path], labels: LabelSet, ids: dict[str, int], out: Path
) -> int:
    """Draw and write all masks; return the number of overlapped pixels."""
    problems: list[DataError] = []
    overlapped = 0
    labelled = False
    pairs = zip(found.pictures, masks, strict=True)
    for entry, mask in track(pairs, "drawing masks", len(masks)):
        with kept(problems):
            height, width = _size(entry)
            # Of crowds the class does not matter.
            instances = [
                Instance(ids.get(shape.name, 0), shape.crowd, shape.segmentation, shape.layer)
                for shape in entry.shapes
            ]
            try:
                drawn, twice = draw(instances, height, width, ignore=labels.ignore)
            except UsageError:
                raise
            except ValueError as error:
                raise DataError(
                    f"{entry.source}: annotations of {entry.picture.name} have {error}",
                    fix="mend or remove what is wrong",
                ) from None
            overlapped += twice
            labelled |= bool(drawn.any())
            write_mask(out / mask, drawn, labels)
    _raise_all(problems)
    if not labelled:
        raise DataError(
            f"{found.pictures[0].source}: no object in all of {len(masks)} pictures",
            fix="are these the right annotations?",
        )
    return overlapped


def _size(entry: Annotated) -> tuple[int, int]:
    """Return height and width of the mask; raise DataError if its picture has others.

    A size before EXIF rotation is kept: such annotations were made on pictures as stored.
    """
    header = read_header(entry.picture)
    size = entry.size or header.size
    if size != header.size and not (header.sideways and size == header.size[::-1]):
        raise size_mismatch(entry.picture, header.size, entry.source, size)
    return size


def _mask_files(entry: Annotated) -> list[Path]:
    return [shape.segmentation for shape in entry.shapes if isinstance(shape.segmentation, Path)]


def _raise_all(problems: list[DataError]) -> None:
    """Raise what was wrong as one error, if anything was."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        _raise_several(problems)


def _raise_several(problems: list[DataError]) -> NoReturn:
    missing = [error for error in problems if error.kind == "missing"]
    others = [error for error in problems if error.kind != "missing"]
    found = [str(error).removesuffix(f"; {error.fix}") for error in (missing + others[:SHOWN])]
    if len(others) > SHOWN:
        found.append(f"and {len(others) - SHOWN} more")
    fixes = dict.fromkeys(error.fix for error in missing[:1] + others[:SHOWN])
    raise DataError(f"{len(problems)} errors: {'; '.join(found)}", fix=" / ".join(fixes))
