"""The user's own data: folders of images and masks, described by a `seenet.yaml`."""

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
FEW_COLOURS = 8
"""Up to so many unknown colours may be drawn on purpose; more come from blending."""


# These run before pydantic's own checks, whose messages list every member of a union.
def _check_colour(value: Any) -> Any:
    if not (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    ):
        raise ValueError(
            f"found {value!r}, expected a colour: [r, g, b], whole numbers from 0 to 255"
        )
    return value


def _check_classes(value: Any) -> Any:
    if not isinstance(value, list | dict):
        raise ValueError(
            f"found {value!r}, expected names: [road, sky], "
            "or names with colours: {road: [128, 64, 128], ...}"
        )
    if not value:
        raise ValueError("found none, expected the name of at least one class")
    for name in value:
        if not isinstance(name, str):
            raise ValueError(
                f"found {name!r}, expected a name; "
                "what YAML reads as no text (yes, no, on, off, 1) needs quotes"
            )
    for name, colour in value.items() if isinstance(value, dict) else ():
        try:
            _check_colour(colour)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    name, times = Counter(list(value)).most_common(1)[0]
    if times > 1:
        raise ValueError(f"found {name} {times} times, expected a name once")
    return value


def _check_val(value: Any) -> Any:
    is_share = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    if not is_share and not isinstance(value, str | Path):
        raise ValueError(
            f"found {value!r}, expected a share from 0 to below 1, "
            "or a list or folder: val.txt, images/val"
        )
    return value


Colour = Annotated[tuple[int, int, int], BeforeValidator(_check_colour)]


class FolderDescription(Section):
    """Content of a `seenet.yaml`; its paths are relative to it."""

    images: Path = Path("images")
    masks: Path = Path("masks")
    mask_suffix: str = ""
    """Suffix of a mask's stem after its picture's: `_mask` for a.jpg and a_mask.png."""
    train: Path | None = None
    """List of stems, one per line, or a folder in that of the pictures; null: all that is not in
    val."""
    val: Annotated[Path | float, BeforeValidator(_check_val)] = 0.2
    """List of stems, a folder in that of the pictures, or a share chosen by a hash of the name."""
    classes: Annotated[dict[str, Colour] | list[str], BeforeValidator(_check_classes)]
    """Names in the order of their ids, with or without colours."""
    ignore: int = IGNORE
    rim: bool = False
    """Whether ignored pixels trace the outlines of objects, as in VOC, so that a trimap is useful
    (`seenet eval --boundary trimap`)."""
    decode: Literal["index", "palette", "rgb", "remap"]
    """Content of mask files: ids as grey values, ids as palette indices, colours of the classes,
    or other ids (`remap`)."""
    ignore_colours: tuple[Colour, ...] = ()
    remap: dict[int, int] = Field(default_factory=dict)
    remap_others: Literal["ignore", "error"] = "error"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.decode == "rgb":
            if not isinstance(self.classes, dict):
                raise ValueError(
                    "decode: rgb needs the colour of each class: "
                    "`classes: {road: [128, 64, 128], ...}`"
                )
            owners: dict[tuple[int, int, int], str] = {}
            ignored = [("ignore_colours", colour) for colour in self.ignore_colours]
            for name, colour in [*self.classes.items(), *ignored]:
                if owners.setdefault(colour, name) != name:
                    raise ValueError(
                        f"decode: rgb: {owners[colour]} and {name} have one colour, "
                        f"{list(colour)}; expected one each"
                    )
        if (self.decode == "remap") != bool(self.remap):
            raise ValueError(
                "decode: remap and a table `remap: {file id: class id, ...}` belong together"
            )
        last = len(self.classes) - 1
        for target in self.remap.values():
            if not 0 <= target <= last and target != self.ignore:
                raise ValueError(
                    f"remap names class id {target}, expected 0 to {last} or ignore ({self.ignore})"
                )
        if 0 <= self.ignore <= last:
            raise ValueError(
                f"ignore {self.ignore} is also a class; use 255, or any id outside 0 to {last}"
            )
        return self

    def labels(self) -> LabelSet:
        colours = (
            tuple(self.classes.values())
            if isinstance(self.classes, dict)
            else voc_colours(len(self.classes))
        )
        return LabelSet("folder", tuple(self.classes), colours, self.ignore, self.rim)


def description_path(settings: DataSettings) -> Path:
    """Return the `seenet.yaml` that `data.root` names or holds."""
    root = Path(settings.root or "")
    return root / FILE if root.is_dir() else root


def read_description(path: Path) -> FolderDescription:
    """Read and validate a `seenet.yaml`.

    Raises:
        DataError: it is missing.
        UsageError: it is invalid.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; expected a description of your pictures and masks; "
            f"{HINT}, data.root=FOLDER says where"
        )
    values = read_yaml(read_text(path), str(path))
    if not isinstance(values, dict):
        raise UsageError(
            f"{path}: found {type(values).__name__}, "
            f"expected a mapping with decode and classes; {HINT}"
        )
    try:
        return FolderDescription.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error, FolderDescription)}") from None


def open_folder(settings: DataSettings, which: str) -> FileSplit:
    """Open train, val or all of the images that a `seenet.yaml` describes."""
    if which not in {"train", "val", "all"}:
        raise UsageError(f"folder has no split {which}; choose train, val or all")
    path = description_path(settings)
    about = read_description(path)
    home = path.parent
    for folder in (about.images, about.masks):
        need_folder(home / folder, f"{path} names it; {HINT}")
    images, masks = by_stem(home / about.images), by_stem(home / about.masks)
    suffix = about.mask_suffix
    if about.images == about.masks and suffix:
        images = {stem: image for stem, image in images.items() if not stem.endswith(suffix)}
    empty = f"look at {path} and its lists"
    if which == "train" and about.train is not None:
        empty = f"{home / about.train} names none, or none that validation does not hold back"
    elif images and isinstance(about.val, float):
        fell, change = ("none", "raise") if which == "val" else ("all", "lower")
        empty = (
            f"the share val: {about.val:g} fell on {fell} of {len(images)} pictures; "
            f"{change} it or give a list"
        )
    pairs = []
    for stem in _split_stems(about, home, path, images, which):
        # A missing file keeps its expected path, for the error that names it.
        image = images.get(stem, home / about.images / stem)
        mask = masks.get(stem + suffix, home / about.masks / f"{stem}{suffix}.png")
        pairs.append((stem, image, mask))
    name = f"{home.resolve().name}/{which}"
    return file_split(name, about.labels(), pairs, decoder(about), empty=empty)


def _split_stems(
    about: FolderDescription, home: Path, path: Path, images: dict[str, Path], which: str
) -> list[str]:
    """Return the stems of the images in a split.

    The share for validation is never trained on, even if the list for training names it.
    """
    if which == "all":
        return list(images)
    if isinstance(about.val, Path):
        val = read_stems(home / about.val, path, images)
    else:
        val = in_share(images, about.val)
    if which == "val":
        return val
    listed = list(images) if about.train is None else read_stems(home / about.train, path, images)
    by_lists = about.train is not None and isinstance(about.val, Path)
    held_out = set() if by_lists else set(val)
    return [stem for stem in listed if stem not in held_out]


def read_stems(path: Path, source: Path, images: dict[str, Path]) -> list[str]:
    """Return the stems of the images in a folder, or in a list (with or without suffix).

    Args:
        path: the folder or the list.
        source: the `seenet.yaml` that names it, for errors.
        images: all images, by stem.
    """
    if path.is_dir():
        return [stem for stem, image in images.items() if path in image.parents]
    hint = f"{source} names it, expected a list, one name a line, or a folder of pictures"
    return [
        line[: -len(Path(line).suffix)] if Path(line).suffix.lower() in IMAGE_SUFFIXES else line
        for line in read_list(path, hint)
    ]


def by_stem(folder: Path) -> dict[str, Path]:
    """Return the images below a folder by relative path without suffix, sorted; hidden ones not.

    Raises:
        DataError: two have the same stem.
    """
    found: dict[str, Path] = {}
    for path in files_below(folder, IMAGE_SUFFIXES):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"{path}: shares its name with {found[stem].name}; rename one of them")
        found[stem] = path
    return found


def in_share(stems: Iterable[str], share: float) -> list[str]:
    """Select the names whose hash is below the share.

    The choice is the same on every machine, and adding images does not change it. Of two or more
    names at least one is selected and one is not, by the order of the hashes; only this exception
    depends on the other names, so that a list is better for a small folder. A share of 0 selects
    none.
    """
    hashes = {stem: int(digest(stem)[:16], 16) for stem in stems}
    ranked = sorted(hashes, key=hashes.__getitem__)
    count = sum(number < share * 2**64 for number in hashes.values())
    if share and len(ranked) > 1:
        count = min(max(count, 1), len(ranked) - 1)
    selected = set(ranked[:count])
    return [stem for stem in hashes if stem in selected]


def decoder(about: FolderDescription) -> Callable[[Path], np.ndarray]:
    """Return the function that reads a mask file as class ids."""
    if about.decode == "rgb":
        table = {colour: index for index, colour in enumerate(about.labels().colours)}
        table |= dict.fromkeys(about.ignore_colours, about.ignore)
        return partial(decode_colours, table=table)
    if about.decode == "remap":
        others = about.ignore if about.remap_others == "ignore" else None
        return partial(decode_remapped, table=about.remap, others=others)
    return read_ids


def decode_colours(path: Path, table: dict[tuple[int, int, int], int]) -> np.ndarray:
    """Read a colour mask as class ids.

    Args:
        path: the mask.
        table: class id of each colour.

    Raises:
        DataError: a colour is not in the table.
    """
    colours = read_colours(path).astype(np.int32)
    packed = colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]
    packed_table = {
        red << 16 | green << 8 | blue: label for (red, green, blue), label in table.items()
    }
    decoded, unknown = _look_up(packed, packed_table)
    if unknown:
        value, pixels, kinds, total = unknown
        colour, more = [value >> 16, value >> 8 & 255, value & 255], ""
        fix = "add it to classes or ignore_colours"
        if kinds > 1:
            more = f", nor do {kinds - 1} others ({total} in all)"
        if kinds > FEW_COLOURS:
            fix = "was it resized or saved as JPEG? resize with nearest neighbour and save as PNG"
        raise DataError(
            f"{path}: colour {colour} ({pixels} pixels) belongs to no class{more}",
            fix=fix,
            kind="ids",
            pixels=total,
        )
    return decoded


def decode_remapped(path: Path, table: dict[int, int], others: int | None) -> np.ndarray:
    """Read a mask with other ids as class ids.

    Args:
        path: the mask.
        table: class id of each id in the file.
        others: class id of all other ids; None: they are an error.

    Raises:
        DataError: an id is not in the table.
    """
    decoded, unknown = _look_up(read_ids(path), table, others)
    if unknown:
        label, pixels, kinds, total = unknown
        more = f", nor have {kinds - 1} others ({total} in all)" if kinds > 1 else ""
        raise DataError(
            f"{path}: id {label} ({pixels} pixels) has no entry in remap{more}",
            fix="add it, or set `remap_others: ignore`",
            kind="no-entry",
            pixels=total,
        )
    return decoded


def _look_up(
    values: np.ndarray, table: dict[int, int], others: int | None = None
) -> tuple[np.ndarray, tuple[int, int, int, int] | None]:
    """Replace each value by its entry in `table`, values without an entry by `others`.

    Returns:
        The result; and, if `others` is None and values have no entry: the first of them, its
        pixels, the number of such values, the pixels of all. Else None.
    """
    keys = np.array(sorted(table))
    targets = np.array([table[key] for key in keys.tolist()])
    small = all(0 <= target < 256 for target in [*table.values(), others or 0])
    position = np.searchsorted(keys, values).clip(max=len(keys) - 1)
    missing = keys[position] != values
    decoded: np.ndarray = targets.astype(np.uint8 if small else np.int32)[position]
    if missing.any():
        if others is None:
            found, counts = np.unique(values[missing], return_counts=True)
            return decoded, (int(found[0]), int(counts[0]), len(found), int(counts.sum()))
        decoded[missing] = others
    return decoded, None
