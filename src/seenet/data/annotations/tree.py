"""Files of a data set to convert, and what the readers of annotations share."""

import mmap
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from seenet.core.errors import DataError
from seenet.core.files import files_below
from seenet.core.images import IMAGE_SUFFIXES
from seenet.data.pairing import OWN_FOLDER, SPLIT_WORDS, normal

OUT = "seenet-masks"
"""Folder of the masks that `convert` writes into that of the data, unless another is given."""
WRITTEN = {OUT, OWN_FOLDER}
"""Folders that SeENet writes into a data set; nothing is searched in them."""
SUFFIXES = (".json", ".xml", ".txt", ".yaml", ".yml", ".names", ".csv", ".mat", ".gz", ".nii")
"""Suffixes of files that annotate, beside those of images."""
LARGEST_SIDE = 10**6


class Shape(NamedTuple):
    """An object: its class, and the rest as in `polygons.Instance`."""

    name: str
    segmentation: Any
    crowd: bool = False
    layer: int = 0


@dataclass(frozen=True)
class Annotated:
    """A picture and its objects.

    `source` is the file that annotates it; `size` the height and width that it gives, if any.
    """

    picture: Path
    source: Path
    size: tuple[int, int] | None
    shapes: list[Shape]


@dataclass(frozen=True)
class Annotations:
    """Result of a reader: classes in the order of the format, and annotated pictures."""

    classes: list[str]
    pictures: list[Annotated]


class Tree:
    """Files below a folder; hidden ones and those that SeENet wrote are left out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures: list[Path] = []
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._others: dict[str, list[Path]] = defaultdict(list)
        for path in files_below(folder, IMAGE_SUFFIXES | set(SUFFIXES)):
            suffix = path.suffix.lower()
            if set(path.relative_to(folder).parts[:-1]) & WRITTEN:
                continue
            if suffix in IMAGE_SUFFIXES:
                self.pictures.append(path)
                self._by_name[normal(path.name)].append(path)
                self._by_stem[normal(path.stem)].append(path)
            else:
                self._others[suffix].append(path)

    def files(self, *suffixes: str) -> list[Path]:
        """Return the files with these suffixes, sorted."""
        return sorted(path for suffix in suffixes for path in self._others[suffix])

    def with_stem(self, stem: Path) -> list[Path]:
        """Return the pictures of a path without suffix; else those of that name elsewhere.

        What lies in another split is another picture.
        """
        same = self._by_stem.get(normal(stem.name), [])
        beside = [path for path in same if path.parent == stem.parent]
        splits = self._splits(stem.parent)
        return beside or [path for path in same if _agree(splits, self._splits(path.parent))]

    def find(self, name: str, source: Path) -> Path:
        """Return the picture that an annotation file names.

        Folders in the name count from the file's folder or the tree's, or from `images` in these,
        or are those of another computer: then the picture whose path ends like the name is taken,
        but not of another split; of several the one near the file, or in a folder that the file's
        name holds (train for instances_train.json).

        Raises:
            DataError: there is none (kind `missing`), or several.
        """
        parts = [part for part in name.replace("\\", "/").split("/") if part not in {"", "."}]
        same = self._by_name.get(normal(parts[-1]), []) if parts else []
        homes = (source.parent, source.parent / "images", self.folder, self.folder / "images")
        for home in homes:
            place = Path(os.path.normpath(home.joinpath(*parts)))
            if place in same:
                return place
        splits = _splits_in("/".join(parts[:-1])) or self._splits(source)
        paths = {
            path: normal(f"/{path.relative_to(self.folder).as_posix()}")
            for path in same
            if _agree(splits, self._splits(path.parent))
        }
        for start in range(len(parts)):
            tail = normal("/" + "/".join(parts[start:]))
            found = [path for path, text in paths.items() if text.endswith(tail)]
            near = (
                [path for path in found if path.is_relative_to(source.parent)],
                [path for path in found if path.parent.name.lower() in source.stem.lower()],
            )
            for some in (found, *near):
                if len(some) == 1:
                    return some[0]
            if found:
                raise DataError(
                    f"{source}: picture {name!r} could be {found[0]} or {found[1]}",
                    fix="leave one of them there",
                )
        raise DataError(
            f"{source}: no picture {name[:200]!r} below {self.folder}",
            fix="copy it there, or name a folder that holds pictures and annotations",
            kind="missing",
        )

    def _splits(self, path: Path) -> set[str]:
        return _splits_in(path.relative_to(self.folder).as_posix())


def _splits_in(text: str) -> set[str]:
    return {
        SPLIT_WORDS[word] for word in re.findall(r"[a-z]+", text.lower()) if word in SPLIT_WORDS
    }


def _agree(one: set[str], other: set[str]) -> bool:
    """Whether two names may be of one split: neither tells any, or they share one."""
    return not one or not other or bool(one & other)


def size_of(height: Any, width: Any) -> tuple[int, int] | None:
    """Return the size of a picture that a file gives; None if it gives none.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if not height or not width:
        return None
    size = int(height), int(width)
    if not 0 < min(size) <= max(size) <= LARGEST_SIDE:
        raise ValueError("a picture of another size than 1 to 10^6 pixels a side")
    return size


def holds(path: Path, *texts: bytes) -> bool:
    """Whether a file holds all of these texts; nothing of it is kept in memory."""
    try:
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as found,
        ):
            return all(found.find(text) >= 0 for text in texts)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False


@contextmanager
def kept(problems: list[DataError]) -> Iterator[None]:
    """Keep the error of the block, so that all are named at once."""
    try:
        yield
    except DataError as error:
        problems.append(error)


@contextmanager
def shaped(path: Path, expected: str) -> Iterator[None]:
    """Turn what the block meets in a file of another shape into a DataError of one line."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, SyntaxError,
            RecursionError, OSError) as error:  # fmt: skip
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise DataError(
            f"{path}: not {expected} ({reason})", fix="export it again", kind="format"
        ) from None
