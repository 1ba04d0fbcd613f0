"""Read what lies beside pictures and masks: names and colours of classes, lists of splits."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from seenet.core.errors import DataError
from seenet.core.files import files_below, read_text
from seenet.data.check.layout import split_word
from seenet.data.folder import find_name, known_names

CLASS_FILES = (
    "_classes.csv", "class_dict.csv", "labelmap.txt", "label_colors.txt", "class_names.txt",
    "classes.txt", "codes.txt", "labels.txt", "obj.names", "data.yaml",
)  # fmt: skip
"""Names of files with classes, those that say most first."""
LIST_SUFFIXES = (".txt", ".lst", ".csv")
LARGEST = 20_000_000
"""Bytes of a list or class file; what is larger is something else."""
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassList:
    """Classes as a file gives them.

    Attributes:
        path: the file.
        names: name of each id.
        colours: colour of each id; empty where the file gives none.
    """

    path: Path
    names: dict[int, str]
    colours: dict[int, Colour]


def find_classes(folder: Path) -> ClassList | None:
    """Return the classes of the first file of `CLASS_FILES` below a folder that can be read."""
    there = files_below(folder, {".csv", ".txt", ".names", ".yaml"})
    for name in CLASS_FILES:
        for path in there:
            if path.name.lower() == name and path.stat().st_size < LARGEST:
                try:
                    found = _read_classes(path)
                except (DataError, ValueError, yaml.YAMLError):
                    continue
                if found.names:
                    return found
    return None


def _read_classes(path: Path) -> ClassList:
    """Read a class file of any of these forms.

    Raises:
        ValueError: it has another form.
    """
    text = read_text(path)
    if path.suffix.lower() == ".yaml":
        content = yaml.safe_load(text)
        names = content.get("names") if isinstance(content, dict) else None
        rows = dict(enumerate(names)) if isinstance(names, list) else names or {}
        return ClassList(path, {int(key): str(name) for key, name in rows.items()}, {})
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    rows = list(_rows(path, lines))
    names = {number: name for number, (_, name, _) in enumerate(rows)}
    if all(given is not None for given, _, _ in rows):
        names = {int(given or 0): name for given, name, _ in rows}
    colours = {
        number: colour
        for number, (_, _, colour) in zip(names, rows, strict=True)
        if colour is not None
    }
    return ClassList(path, names, colours if len(colours) == len(names) else {})


def _rows(path: Path, lines: Sequence[str]) -> Iterator[tuple[int | None, str, Colour | None]]:
    """Yield id, name and colour of each class, as far as a file has them."""
    if path.suffix.lower() == ".csv":
        table = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
        header = [cell.lower() for cell in table[0]]
        columns = [header.index(part) for part in ("r", "g", "b") if part in header]
        for row in table[1:]:
            if len(columns) == 3:
                yield None, row[0], _colour([row[column] for column in columns])
            else:
                yield int(row[0]), row[1], None
        return
    for line in lines:
        if match := re.fullmatch(r"([^:]+):(\d+),(\d+),(\d+):.*", line):  # CVAT's labelmap.txt
            yield None, match[1].strip(), _colour(match.groups()[1:])
        elif match := re.fullmatch(r"(\d+)\s+(\d+)\s+(\d+)\s+(\S.*)", line):
            yield None, match[4].strip(), _colour(match.groups()[:3])
        elif match := re.fullmatch(r"(\d+)\s*[:,;\s]\s*(\S.*)", line):
            yield int(match[1]), match[2].strip(), None
        else:
            yield None, line, None


def _colour(parts: Sequence[str]) -> Colour:
    red, green, blue = (int(part) for part in parts)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"no colour: {parts}")
    return red, green, blue


def find_lists(folder: Path, pictures: dict[str, Path]) -> dict[str, list[Path]]:
    """Return the lists of each split whose lines name pictures of the data set, best first.

    Args:
        folder: where lists are looked for, also below.
        pictures: pictures with masks, by name.

    Returns:
        Files of `train`, `val` and `test`; those in one folder, preferably of segmentation, come
        first.

    Raises:
        DataError: some of the names on a list in the folder itself are no pictures.
    """
    known = known_names(folder, pictures)
    found: dict[str, list[Path]] = {}
    for path in files_below(folder, LIST_SUFFIXES):
        word = split_word(path.stem)
        if word is None or path.name.lower() in CLASS_FILES or path.stat().st_size > LARGEST:
            continue
        if "trainval" in path.stem.lower():
            continue
        try:
            lines = [line for line in read_text(path).splitlines() if line.strip()]
        except DataError:
            continue
        unknown = [line for line in lines if find_name(line.strip(), known) not in pictures]
        if lines and not unknown:
            found.setdefault(word, []).append(path)
        elif 2 * len(unknown) <= len(lines) and path.parent == folder:
            raise DataError(
                f"{path}: {len(unknown)} of {len(lines)} names are no picture with a mask, such as "
                f"{unknown[0]}; expected names such as {next(iter(pictures))}"
            )
    for paths in found.values():
        paths.sort(key=lambda path: ("segmentation" not in str(path).lower(), len(path.parts)))
    return found


def splits_from_lists(folder: Path, pictures: dict[str, Path]) -> dict[str, Path]:
    """Return one list for each of `train`, `val` and `test`, all of one folder."""
    found = find_lists(folder, pictures)
    homes = [path.parent for path in found.get("val", [])]
    complete = {path.parent for path in found.get("train", [])}
    home = next((home for home in homes if home in complete), homes[0] if homes else None)
    return {
        word: next(path for path in paths if path.parent == home)
        for word, paths in found.items()
        if any(path.parent == home for path in paths)
    }
