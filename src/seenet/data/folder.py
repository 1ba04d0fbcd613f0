"""The user's own pictures: folders of images and masks, as a `seenet.yaml` describes them."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np

from seenet.core.errors import DataError, UsageError
from seenet.core.files import digest, files_below
from seenet.core.images import IMAGE_SUFFIXES, read_colours, read_ids
from seenet.core.settings import DataSettings
from seenet.data.description import HINT, FolderDescription, description_path, read_description
from seenet.data.split import FileSplit, file_split, need_folder, read_list

FEW = 8
"""Colours of no class that somebody may have drawn; more come of blending."""


def open_folder(settings: DataSettings, which: str) -> FileSplit:
    """train, val or all, of the pictures that `seenet.yaml` describes."""
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
    """Names of a split's pictures. A share is never trained on, even where a list for training names it."""
    if which == "all":
        return list(images)
    val = listed(home / about.val, path, images) if isinstance(about.val, Path) else in_share(images, about.val)
    if which == "val":
        return val
    held = set(val)
    if about.train is None:
        return [stem for stem in images if stem not in held]
    return [stem for stem in listed(home / about.train, path, images) if isinstance(about.val, Path) or stem not in held]


def listed(path: Path, source: Path, images: dict[str, Path]) -> list[str]:
    """Stems of the pictures in a folder, or of a list; there they are understood with a picture's suffix too."""
    if path.is_dir():
        return [stem for stem, image in images.items() if path in image.parents]
    lines = read_list(path, f"{source} names it, expected a list, one name a line, or a folder of pictures")
    return [line[: -len(Path(line).suffix)] if Path(line).suffix.lower() in IMAGE_SUFFIXES else line for line in lines]


def by_stem(folder: Path) -> dict[str, Path]:
    """Pictures below a folder, none of them hidden, by relative path without suffix, sorted; DataError where two share one."""
    found: dict[str, Path] = {}
    for path in files_below(folder, IMAGE_SUFFIXES):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"{path}: shares its name with {found[stem].name}; rename one of them")
        found[stem] = path
    return found


def in_share(stems: Iterable[str], share: float) -> list[str]:
    """The names whose hash lies below the share: the same on every machine, and whatever pictures are added later.

    A small folder may have none there, or nothing else. Then, of two names or more, the smallest hash is taken all the same, or the
    largest left; that choice alone may change as pictures are added, so a small folder is better off with a list. 0 takes none.
    """
    hashes = {stem: int(digest(stem)[:16], 16) for stem in stems}
    ranked = sorted(hashes, key=hashes.__getitem__)
    count = sum(number < share * 2**64 for number in hashes.values())
    if share and len(ranked) > 1:
        count = min(max(count, 1), len(ranked) - 1)
    taken = set(ranked[:count])
    return [stem for stem in hashes if stem in taken]


def decoder(about: FolderDescription) -> Callable[[Path], np.ndarray]:
    """How this folder's masks become class ids."""
    if about.decode == "rgb":
        assert isinstance(about.classes, dict)
        table = {colour: index for index, colour in enumerate(about.classes.values())}
        return partial(decode_colours, table=table | dict.fromkeys(about.ignore_colours, about.ignore))
    if about.decode == "remap":
        return partial(decode_remapped, table=about.remap, others=about.ignore if about.remap_others == "ignore" else None)
    return read_ids


def decode_colours(path: Path, table: dict[tuple[int, int, int], int]) -> np.ndarray:
    """Class ids of a mask in colours; DataError for a colour that the table does not have, with its pixels."""
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
    """Class ids of a mask with other ids; DataError for ids without an entry unless `others` says what they become."""
    decoded, unknown = _look_up(read_ids(path), table, others)
    if unknown:
        label, pixels, kinds, total = unknown
        more = f", nor have {kinds - 1} others ({total} in all)" if kinds > 1 else ""
        fix = "add it, or set `remap_others: ignore`"
        raise DataError(f"{path}: id {label} ({pixels} pixels) has no entry in remap{more}", fix=fix, kind="no-entry", pixels=total)
    return decoded


def _look_up(values: np.ndarray, table: dict[int, int], others: int | None = None) -> tuple[np.ndarray, tuple[int, int, int, int] | None]:
    """`table` applied to each value; unless `others` stands for those without an entry, the first of these, its pixels, how many such
    values there are, and the pixels of all.
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
