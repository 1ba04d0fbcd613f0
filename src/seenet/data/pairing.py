"""Pair pictures with their masks by a rule of names, such as `"{id}.jpg -> {id}_label.png"`."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from seenet.core.errors import DataError
from seenet.core.files import files_below
from seenet.core.images import IMAGE_SUFFIXES

SUFFIXES = IMAGE_SUFFIXES | {".npy"}
"""Suffixes of files that may be pictures or masks."""
OWN_FOLDER = "seenet-init"
"""Folder of the contact sheet of `seenet data init`, which holds no data."""
ANY_SUFFIX = ".*"
SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Words for the splits in names of files and folders."""
_FIELD = re.compile(r"\{(\w+)\}")


def composed(name: str) -> str:
    """Return a name in Unicode's composed form, NFC."""
    return unicodedata.normalize("NFC", name)


def normal(name: str) -> str:
    """Return a name in the form in which names are compared: NFC, without case."""
    return composed(name).casefold()


def without_suffix(name: str) -> str:
    """Remove the suffix of a picture or mask from a path, if it has one."""
    suffix = Path(name).suffix
    return name[: -len(suffix)] if suffix.lower() in SUFFIXES else name


@dataclass(frozen=True)
class PairRule:
    """Patterns of a picture's path and of its mask's, each relative to its folder.

    `{id}` and other fields stand for any text, also with slashes; `{split}` for text without. A
    pattern that ends in `.*` allows the suffix of any image format.
    """

    image: str
    mask: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `IMAGE -> MASK`.

        Raises:
            ValueError: no such rule, with what was found and expected.
        """
        image, arrow, mask = (part.strip() for part in text.partition("->"))
        fields = set(_FIELD.findall(image))
        unknown = set(_FIELD.findall(mask)) - fields
        if not arrow or "id" not in fields or "{id}" not in mask or unknown:
            raise ValueError(
                f'found {text!r}, expected a rule such as "{{id}}.jpg -> {{id}}_label.png", '
                "with {id} on both sides and no field on the right alone"
            )
        return cls(image, mask)

    def __str__(self) -> str:
        return f"{self.image} -> {self.mask}"

    def fields_of(self, image: str) -> dict[str, str] | None:
        """Return the fields of a picture's path; None if it does not follow the rule."""
        found = _pattern(self.image).fullmatch(composed(image))
        return found.groupdict() if found else None

    def is_mask(self, path: str) -> bool:
        """Return whether a path follows the rule for masks, and more closely than for pictures."""
        literal = len(_FIELD.sub("", self.mask)) > len(_FIELD.sub("", self.image))
        return literal and _pattern(self.mask).fullmatch(composed(path)) is not None

    def mask_of(self, fields: dict[str, str]) -> str:
        """Return the path of the mask; its suffix may be `.*`, and its case another."""
        return _FIELD.sub(lambda field: fields[field[1]], self.mask)


SAME_NAME = PairRule("{id}.*", "{id}.*")


def _pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern; a field that stands twice must match the same text."""
    any_suffix = text.endswith(ANY_SUFFIX)
    expression, seen = "", set()
    for number, part in enumerate(_FIELD.split(text.removesuffix(ANY_SUFFIX))):
        if number % 2 == 0:
            expression += re.escape(composed(part))
        elif part in seen:
            expression += f"(?P={part})"
        else:
            seen.add(part)
            expression += f"(?P<{part}>{'[^/]+' if part.startswith('split') else '.+'})"
    if any_suffix:
        expression += r"\.(?:" + "|".join(suffix[1:] for suffix in sorted(SUFFIXES)) + ")"
    return re.compile(expression, re.IGNORECASE)


@dataclass(frozen=True)
class Pairs:
    """Files of a data set as a rule pairs them.

    Attributes:
        images: pictures by their path below their folder, without suffix; sorted.
        masks: mask of each picture that has one, by the same names.
        lonely: masks without a picture.
    """

    images: dict[str, Path]
    masks: dict[str, Path]
    lonely: list[Path]


def pair_files(images: Path, masks: Path, rule: PairRule) -> Pairs:
    """Pair the files below two folders, which may be the same or lie in each other.

    Raises:
        DataError: a folder cannot be listed, or two files have one name without suffix or case.
    """
    there = _relative(masks, without=images)
    known = _by_name(masks, there)
    loose = _by_name(masks, there, loosely=True) if rule.mask.endswith(ANY_SUFFIX) else {}
    found: dict[str, Path] = {}
    of: dict[str, Path] = {}
    for name in _relative(images, without=masks):
        fields = rule.fields_of(name)
        if fields is None or (images == masks and rule.is_mask(name)):
            continue
        wanted = normal(rule.mask_of(fields))
        mask = (
            loose.get(wanted.removesuffix(ANY_SUFFIX))
            if wanted.endswith(ANY_SUFFIX)
            else known.get(wanted)
        )
        key = without_suffix(name)
        if key in found:
            raise DataError(
                f"{images / name}: shares its name with {found[key].name}; rename one of them, "
                'or say which suffix pictures have: `pair: "{id}.jpg -> {id}.png"`'
            )
        found[key] = images / name
        if mask is not None and mask != found[key]:
            of[key] = mask
    used = set(of.values())
    if images == masks:  # what is the mask of another file is no picture itself
        found = {key: path for key, path in found.items() if path not in used}
        of = {key: mask for key, mask in of.items() if key in found}
    pictures = set(found.values())
    pattern = _pattern(rule.mask)
    lonely = [
        masks / name
        for name in there
        if masks / name not in used | pictures and pattern.fullmatch(composed(name))
    ]
    if images == masks:
        lonely = [path for path in lonely if rule.is_mask(path.relative_to(masks).as_posix())]
    return Pairs(found, of, lonely)


def _relative(folder: Path, *, without: Path) -> list[str]:
    """List the files below a folder, but not those of the other folder if that lies in it."""
    nested = without != folder and folder in without.parents
    return [
        path.relative_to(folder).as_posix()
        for path in files_below(folder, SUFFIXES)
        if not (nested and without in path.parents)
        and OWN_FOLDER not in path.relative_to(folder).parts[:1]
    ]


def _by_name(folder: Path, names: list[str], *, loosely: bool = False) -> dict[str, Path]:
    """Return files by their normalised names, `loosely` without suffix.

    Raises:
        DataError: two files have one name but for case or Unicode form.
    """
    found: dict[str, Path] = {}
    for name in names:
        key = normal(without_suffix(name) if loosely else name)
        if key in found and not loosely:
            raise DataError(f"{folder / name}: shares its name with {found[key]}; rename one")
        found[key] = folder / name
    return found
