"""The user's own pictures: folders of images and masks, as a `seenet.yaml` describes them."""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from seenet.core.errors import DataError, UsageError
from seenet.core.files import digest, files_below, read_text
from seenet.core.images import IMAGE_SUFFIXES, read_colours, read_ids
from seenet.core.labels import IGNORE, LabelSet, voc_colours
from seenet.core.recipe_files import explain, read_yaml
from seenet.core.settings import DataSettings, Section
from seenet.data.split import FileSplit, file_split, need_folder, read_list

FILE = "seenet.yaml"
HINT = "`seenet data init FOLDER` proposes one"
FEW = 8
"""Colours of no class that somebody may have drawn; more come of blending."""


# Checked before pydantic does: of a union it names every member, and says of none what was meant.
def _as_colour(value: Any) -> Any:
    if not (isinstance(value, list | tuple) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value)):
        raise ValueError(f"found {value!r}, expected a colour: [r, g, b], whole numbers from 0 to 255")
    return value


def _as_classes(value: Any) -> Any:
    if not isinstance(value, list | dict):
        raise ValueError(f"found {value!r}, expected names: [road, sky], or names with colours: {{road: [128, 64, 128], ...}}")
    if not value:
        raise ValueError("found none, expected the name of at least one class")
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"found {name!r}, expected a name; what YAML reads as no text (yes, no, on, off, 1) needs quotes")
    for name, colour in value.items() if isinstance(value, dict) else ():
        try:
            _as_colour(colour)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    name, times = Counter(list(value)).most_common(1)[0]
    if times > 1:
        raise ValueError(f"found {name} {times} times, expected a name once")
    return value


def _as_part(value: Any) -> Any:
    if isinstance(value, str | Path) or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1):
        return value
    raise ValueError(f"found {value!r}, expected a share from 0 to below 1, or a list or folder: val.txt, images/val")


Colour = Annotated[tuple[int, int, int], BeforeValidator(_as_colour)]


class FolderDescription(Section):
    """The content of a `seenet.yaml`; paths are relative to it."""

    images: Path = Path("images")
    masks: Path = Path("masks")
    mask_suffix: str = ""
    """What a mask's stem has behind its picture's: `_mask` for a.jpg and a_mask.png."""
    train: Path | None = None
    """List of stems, one a line, or a folder in that of the pictures; null: all that is not in val."""
    val: Annotated[Path | float, BeforeValidator(_as_part)] = 0.2
    """List of stems, a folder in that of the pictures, or the share chosen by a hash of the name."""
    classes: Annotated[dict[str, Colour] | list[str], BeforeValidator(_as_classes)]
    """Names in the order of their ids, with colours or without."""
    ignore: int = IGNORE
    rim: bool = False
    """Whether ignored pixels trace the objects' outlines, as in VOC, so that a trimap means something
    (`seenet eval --boundary trimap`)."""
    decode: Literal["index", "palette", "rgb", "remap"]
    """What mask files hold: ids as grey values, ids as palette indices, colours of the classes, or
    other ids (`remap`)."""
    ignore_colours: tuple[Colour, ...] = ()
    remap: dict[int, int] = Field(default_factory=dict)
    remap_others: Literal["ignore", "error"] = "error"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.decode == "rgb":
            if not isinstance(self.classes, dict):
                raise ValueError("decode: rgb needs the colour of each class: `classes: {road: [128, 64, 128], ...}`")
            owners: dict[tuple[int, int, int], str] = {}
            for name, colour in [*self.classes.items(), *(("ignore_colours", colour) for colour in self.ignore_colours)]:
                if owners.setdefault(colour, name) != name:
                    raise ValueError(f"decode: rgb: {owners[colour]} and {name} have one colour, {list(colour)}; expected one each")
        if (self.decode == "remap") != bool(self.remap):
            raise ValueError("decode: remap and a table `remap: {file id: class id, ...}` belong together")
        wrong = [target for target in self.remap.values() if not 0 <= target < len(self.classes) and target != self.ignore]
        if wrong:
            raise ValueError(f"remap names class id {wrong[0]}, expected 0 to {len(self.classes) - 1} or ignore ({self.ignore})")
        if 0 <= self.ignore < len(self.classes):
            raise ValueError(f"ignore {self.ignore} is also a class; use 255, or any id outside 0 to {len(self.classes) - 1}")
        return self

    def labels(self) -> LabelSet:
        colours = tuple(self.classes.values()) if isinstance(self.classes, dict) else voc_colours(len(self.classes))
        return LabelSet("folder", tuple(self.classes), colours, self.ignore, self.rim)


def description_path(settings: DataSettings) -> Path:
    """Find the `seenet.yaml` that `data.root` names, or that stands in it."""
    root = Path(settings.root or "")
    return root / FILE if root.is_dir() else root


def read_description(path: Path) -> FolderDescription:
    """Read and validate a `seenet.yaml`.

    Raises:
        DataError: it is not there.
        UsageError: it is wrong, in one line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a description of your pictures and masks; {HINT}, data.root=FOLDER says where")
    values = read_yaml(read_text(path), str(path))
    if not isinstance(values, dict):
        raise UsageError(f"{path}: found {type(values).__name__}, expected a mapping with decode and classes; {HINT}")
    try:
        return FolderDescription.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error, FolderDescription)}") from None


def open_folder(settings: DataSettings, which: str) -> FileSplit:
    """Open train, val or all of the pictures that `seenet.yaml` describes."""
    if which not in {"train", "val", "all"}:
        raise UsageError(f"folder has no split {which}; choose train, val or all")
    path = description_path(settings)
    about = read_description(path)
    home = path.parent
    need_folder(home / about.images, f"{path} names it; {HINT}")
    need_folder(home / about.masks, f"{path} names it; {HINT}")
    images = by_stem(home / about.images)
    masks = by_stem(home / about.masks)
    if about.images == about.masks and about.mask_suffix:
        images = {stem: image for stem, image in images.items() if not stem.endswith(about.mask_suffix)}
    stems = _stems(about, home, path, images, which)
    empty = f"look at {path} and its lists"
    if which == "train" and about.train is not None:
        empty = f"{home / about.train} names none, or none that validation does not hold back"
    elif images and isinstance(about.val, float):
        fell, change = ("none", "raise") if which == "val" else ("all", "lower")
        empty = f"the share val: {about.val:g} fell on {fell} of {len(images)} pictures; {change} it or give a list"
    pairs = []
    for stem in stems:
        # What is not there keeps the path where it was expected, for the error that names it.
        image = images.get(stem, home / about.images / stem)
        pairs.append((stem, image, masks.get(stem + about.mask_suffix, home / about.masks / f"{stem}{about.mask_suffix}.png")))
    return file_split(f"{home.resolve().name}/{which}", about.labels(), pairs, decoder(about), empty=empty)


def _stems(about: FolderDescription, home: Path, path: Path, images: dict[str, Path], which: str) -> list[str]:
    """List the names of a split's pictures.

    A share is never trained on, even where a list for training names it.
    """
    if which == "all":
        return list(images)
    val = read_stems(home / about.val, path, images) if isinstance(about.val, Path) else in_share(images, about.val)
    if which == "val":
        return val
    held = set(val)
    if about.train is None:
        return [stem for stem in images if stem not in held]
    return [stem for stem in read_stems(home / about.train, path, images) if isinstance(about.val, Path) or stem not in held]


def read_stems(path: Path, source: Path, images: dict[str, Path]) -> list[str]:
    """List the stems of the pictures in a folder, or of a list (with or without suffix)."""
    if path.is_dir():
        return [stem for stem, image in images.items() if path in image.parents]
    lines = read_list(path, f"{source} names it, expected a list, one name a line, or a folder of pictures")
    return [line[: -len(Path(line).suffix)] if Path(line).suffix.lower() in IMAGE_SUFFIXES else line for line in lines]


def by_stem(folder: Path) -> dict[str, Path]:
    """Find the pictures below a folder, not hidden, by relative path without suffix, sorted.

    Raises:
        DataError: two share a name.
    """
    found: dict[str, Path] = {}
    for path in files_below(folder, IMAGE_SUFFIXES):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"{path}: shares its name with {found[stem].name}; rename one of them")
        found[stem] = path
    return found


def in_share(stems: Iterable[str], share: float) -> list[str]:
    """Select the names whose hash lies below the share.

    The choice is the same on every machine, whatever pictures are added later. A small folder may
    have none there, or nothing else. Then, of two names or more, the smallest hash is taken all the
    same, or the largest left; that choice alone may change as pictures are added, so a small folder
    is better off with a list. 0 takes none.
    """
    hashes = {stem: int(digest(stem)[:16], 16) for stem in stems}
    ranked = sorted(hashes, key=hashes.__getitem__)
    count = sum(number < share * 2**64 for number in hashes.values())
    if share and len(ranked) > 1:
        count = min(max(count, 1), len(ranked) - 1)
    taken = set(ranked[:count])
    return [stem for stem in hashes if stem in taken]


def decoder(about: FolderDescription) -> Callable[[Path], np.ndarray]:
    """Choose how this folder's masks become class ids."""
    if about.decode == "rgb":
        assert isinstance(about.classes, dict)
        table = {colour: index for index, colour in enumerate(about.classes.values())}
        return partial(decode_colours, table=table | dict.fromkeys(about.ignore_colours, about.ignore))
    if about.decode == "remap":
        return partial(decode_remapped, table=about.remap, others=about.ignore if about.remap_others == "ignore" else None)
    return read_ids


def decode_colours(path: Path, table: dict[tuple[int, int, int], int]) -> np.ndarray:
    """Read a mask in colours as class ids.

    Raises:
        DataError: a colour that the table does not have, with its pixels.
    """
    colours = read_colours(path).astype(np.int32)
    packed = colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]
    decoded, unknown = _look_up(packed, {red << 16 | green << 8 | blue: label for (red, green, blue), label in table.items()})
    if unknown:
        value, pixels, kinds, total = unknown
        colour, more = [value >> 16, value >> 8 & 255, value & 255], ""
        fix = "add it to classes or ignore_colours"
        if kinds > 1:
            more = f", nor do {kinds - 1} others ({total} in all)"
        if kinds > FEW:
            fix = "was it resized or saved as JPEG? resize with nearest neighbour and save as PNG"
        raise DataError(f"{path}: colour {colour} ({pixels} pixels) belongs to no class{more}", fix=fix, kind="ids", pixels=total)
    return decoded


def decode_remapped(path: Path, table: dict[int, int], others: int | None) -> np.ndarray:
    """Read a mask with other ids as class ids.

    Args:
        path: the mask.
        table: class id of each id in the file.
        others: class id of all other ids; None: they are an error.

    Raises:
        DataError: an id without an entry, with its pixels.
    """
    decoded, unknown = _look_up(read_ids(path), table, others)
    if unknown:
        label, pixels, kinds, total = unknown
        more = f", nor have {kinds - 1} others ({total} in all)" if kinds > 1 else ""
        fix = "add it, or set `remap_others: ignore`"
        raise DataError(f"{path}: id {label} ({pixels} pixels) has no entry in remap{more}", fix=fix, kind="no-entry", pixels=total)
    return decoded


def _look_up(values: np.ndarray, table: dict[int, int], others: int | None = None) -> tuple[np.ndarray, tuple[int, int, int, int] | None]:
    """Apply `table` to each value; `others` stands for those without an entry.

    Returns:
        The looked-up values, and, unless `others` is given, of those without an entry: the first,
        its pixels, how many such values there are, the pixels of all. None where there are none.
    """
    keys = np.array(sorted(table))
    targets = np.array([table[key] for key in keys.tolist()])
    small = all(0 <= target < 256 for target in [*table.values(), others or 0])
    place = np.searchsorted(keys, values).clip(max=len(keys) - 1)
    missing = keys[place] != values
    decoded: np.ndarray = targets.astype(np.uint8 if small else np.int32)[place]
    if missing.any():
        if others is None:
            found, counts = np.unique(values[missing], return_counts=True)
            return decoded, (int(found[0]), int(counts[0]), len(found), int(counts.sum()))
        decoded[missing] = others
    return decoded, None
