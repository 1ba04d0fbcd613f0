"""The user's own pictures: folders of images and masks, described by one short YAML."""

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import yaml
from pydantic import Field, ValidationError, model_validator

from seenet.core.errors import DataError, UsageError
from seenet.core.images import IMAGE_SUFFIXES, read_colours, read_ids
from seenet.core.labels import IGNORE, LabelSet, voc_colours
from seenet.core.settings import DataSettings, Section, explain
from seenet.data.split import FileSplit, file_split, need_folder, read_list

FILE = "seenet.yaml"
HINT = "`seenet data init FOLDER` proposes one"

Colour = tuple[Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)]]


class FolderDescription(Section):
    """What `seenet.yaml` says; paths are relative to it."""

    images: Path = Path("images")
    masks: Path = Path("masks")
    mask_suffix: str = ""
    """What a mask's stem has behind its picture's: `_mask` for a.jpg and a_mask.png."""
    train: Path | None = None
    """List of stems, one a line; null: everything that is not in val."""
    val: Path | Annotated[float, Field(ge=0, lt=1)] = 0.2
    """List of stems, or the share chosen by a hash of the name."""
    classes: dict[str, Colour] | list[str]
    """Names in the order of their ids, with colours or without."""
    ignore: int = IGNORE
    decode: Literal["index", "palette", "rgb", "remap"]
    """What mask files hold: ids as grey values, ids as palette indices, colours of the classes, or other ids (`remap`)."""
    ignore_colours: tuple[Colour, ...] = ()
    remap: dict[int, int] = Field(default_factory=dict)
    remap_others: Literal["ignore", "error"] = "error"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.decode == "rgb" and not isinstance(self.classes, dict):
            raise ValueError("decode: rgb needs the colour of each class: `classes: {road: [128, 64, 128], ...}`")
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
        return LabelSet("folder", tuple(self.classes), colours, self.ignore)


def open_folder(settings: DataSettings, which: str) -> FileSplit:
    """train, val or all, of the pictures that `seenet.yaml` describes."""
    if which not in {"train", "val", "all"}:
        raise UsageError(f"folder has no split {which}; choose train, val or all")
    root = Path(settings.root or "")
    path = root / FILE if root.is_dir() else root
    about = read_description(path)
    home = path.parent
    need_folder(home / about.images, f"{path} names it; {HINT}")
    need_folder(home / about.masks, f"{path} names it; {HINT}")
    images = by_stem(home / about.images)
    masks = by_stem(home / about.masks)
    if about.images == about.masks and about.mask_suffix:
        images = {stem: image for stem, image in images.items() if not stem.endswith(about.mask_suffix)}
    stems = _stems(about, home, path, images, which)
    pairs = []
    for stem in stems:
        # What is not there keeps the path where it was expected, for the error that names it.
        image = images.get(stem, home / about.images / stem)
        pairs.append((stem, image, masks.get(stem + about.mask_suffix, home / about.masks / f"{stem}{about.mask_suffix}.png")))
    return file_split(f"{home.resolve().name}/{which}", about.labels(), pairs, decoder(about), empty=f"look at {path} and its lists")


def _stems(about: FolderDescription, home: Path, path: Path, images: Iterable[str], which: str) -> list[str]:
    """Names of a split's pictures. A share is never trained on, even where a list for training names it."""
    if which == "all":
        return list(images)
    val = _listed(home / about.val, path) if isinstance(about.val, Path) else [stem for stem in images if in_share(stem, about.val)]
    if which == "val":
        return val
    held = set(val)
    if about.train is None:
        return [stem for stem in images if stem not in held]
    return [stem for stem in _listed(home / about.train, path) if isinstance(about.val, Path) or stem not in held]


def _listed(path: Path, source: Path) -> list[str]:
    """Stems of a list; with a picture's suffix they are understood too."""
    lines = read_list(path, f"{source} names it, expected one name a line")
    return [line[: -len(Path(line).suffix)] if Path(line).suffix.lower() in IMAGE_SUFFIXES else line for line in lines]


def read_description(path: Path) -> FolderDescription:
    """Validate a `seenet.yaml`; DataError where it is not there, UsageError in one line where it is wrong."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a short description of your pictures and masks; {HINT}")
    try:
        return FolderDescription.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error, FolderDescription)}") from None


def by_stem(folder: Path) -> dict[str, Path]:
    """Pictures below a folder, by relative path without suffix, sorted; DataError where two share one."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in found:
                raise DataError(f"{path}: shares its name with {found[stem].name}; rename one of them")
            found[stem] = path
    return found


def in_share(stem: str, share: float) -> bool:
    """Whether a name belongs to the share that its hash decides on; the same on every machine, and for pictures added later."""
    number = int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8], "big")
    return number < share * 2**64


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
        value, pixels = unknown
        colour = [value >> 16, value >> 8 & 255, value & 255]
        raise DataError(f"{path}: colour {colour} ({pixels} pixels) belongs to no class; add it to classes or ignore_colours")
    return decoded


def decode_remapped(path: Path, table: dict[int, int], others: int | None) -> np.ndarray:
    """Class ids of a mask with other ids; DataError for ids without an entry unless `others` says what they become."""
    decoded, unknown = _look_up(read_ids(path), table, others)
    if unknown:
        raise DataError(f"{path}: id {unknown[0]} ({unknown[1]} pixels) has no entry in remap; add it, or set `remap_others: ignore`")
    return decoded


def _look_up(values: np.ndarray, table: dict[int, int], others: int | None = None) -> tuple[np.ndarray, tuple[int, int] | None]:
    """`table` applied to each value, and the first value without an entry with its pixels, unless `others` stands for all of them."""
    keys = np.array(sorted(table))
    targets = np.array([table[key] for key in keys.tolist()])
    small = all(0 <= target < 256 for target in [*table.values(), others or 0])
    place = np.searchsorted(keys, values).clip(max=len(keys) - 1)
    missing = keys[place] != values
    decoded: np.ndarray = targets.astype(np.uint8 if small else np.int32)[place]
    if missing.any():
        if others is None:
            found, counts = np.unique(values[missing], return_counts=True)
            return decoded, (int(found[0]), int(counts[0]))
        decoded[missing] = others
    return decoded, None
