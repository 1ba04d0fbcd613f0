"""Which pictures a command is asked for, and what their outputs are called."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from seenet.core.errors import DataError, UsageError
from seenet.core.files import files_below
from seenet.core.images import IMAGE_SUFFIXES
from seenet.prediction.raster import by_windows


@dataclass(frozen=True)
class Input:
    """A picture and the name of its outputs: subfolders (with /) and stem, or the whole file name where stems clash.

    `windows`: it is read and its mask written by windows (`raster`).
    """

    path: Path
    name: str
    windows: bool = False


def find_inputs(patterns: Iterable[str | Path], out: Path) -> list[Input]:
    """Pictures as `find_pictures`, with the names of their outputs. UsageError: two files that would get the same outputs."""
    found = find_pictures(patterns, out)
    return [Input(path, name, by_windows(path)) for (path, _), name in zip(found, output_names(found), strict=True)]


def find_pictures(patterns: Iterable[str | Path], out: Path) -> list[tuple[Path, str]]:
    """Pictures of files, folders (recursive, by suffix, hidden ones left out) and globs, each once, in a stable order, and what each is
    called: a folder's pictures keep their subfolders, a glob's those from its first wildcard on.

    What lies in `out` is never an input. DataError: nothing there.
    """
    found: dict[str, tuple[Path, str]] = {}
    for pattern in patterns:
        for path, relative in _expand(Path(pattern)):
            found.setdefault(os.path.abspath(path), (path, relative))
    # By any name that the folder has.
    inside = os.path.realpath(out) + os.sep
    kept = [entry for where, entry in found.items() if not (os.path.realpath(Path(where).parent) + os.sep).startswith(inside)]
    if not kept:
        raise DataError(f"found no picture outside {out}, where the outputs go; give other inputs or another --out")
    return kept


def _expand(pattern: Path) -> Iterator[tuple[Path, str]]:
    if pattern.is_dir():
        pictures = files_below(pattern, IMAGE_SUFFIXES)
        if not pictures:
            raise DataError(f"{pattern}: found no picture in this folder; expected files such as .jpg, .png or .tif, here or below")
        yield from ((path, path.relative_to(pattern).as_posix()) for path in pictures)
    elif pattern.exists() or not glob.has_magic(str(pattern)):
        if not pattern.is_file():
            raise DataError(f"{pattern}: no such file or folder; expected pictures, folders or a pattern such as 'photos/*.jpg'")
        yield pattern, pattern.name
    else:
        root = _fixed_part(pattern)
        # pathlib's own glob takes no absolute pattern.
        matches = sorted(Path(match) for match in glob.glob(str(pattern), recursive=True))  # noqa: PTH207
        pictures = [path for path in matches if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES]
        if not pictures:
            raise DataError(
                f"{pattern}: found {len(matches)} files for this pattern, none of them a picture; expected files such as .jpg, .png or .tif"
            )
        yield from ((path, path.relative_to(root).as_posix()) for path in pictures)


def _fixed_part(pattern: Path) -> Path:
    """The folders before the first wildcard."""
    fixed = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def output_names(pictures: list[tuple[Path, str]]) -> list[str]:
    """Names of the outputs of (path, relative name): the stem, or the whole file name for those whose stems clash."""
    whole = [relative for _, relative in pictures]
    for relative, count in Counter(whole).items():
        if count > 1:
            one, other = [str(path) for path, name in pictures if name == relative][:2]
            raise UsageError(
                f"{one} and {other} would both be written as {relative}; give a folder that holds both, or run twice with two --out"
            )
    names = [str(PurePosixPath(relative).with_suffix("")) for relative in whole]
    while True:
        # Again, since a whole name may meet another file's stem: a.jpg beside a.jpg.png.
        counts = Counter(names)
        longer = [full if counts[name] > 1 else name for name, full in zip(names, whole, strict=True)]
        if longer == names:
            return names
        names = longer
