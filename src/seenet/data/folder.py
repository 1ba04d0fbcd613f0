"""The user's own pictures: folders of images and masks, described by one short YAML."""

import hashlib
from collections.abc import Callable
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
    if isinstance(about.val, Path):
        val = read_list(home / about.val, f"{path} names it")
    else:
        val = [stem for stem in images if in_share(stem, about.val)]
    if which == "val":
        stems = val
    elif which == "train" and about.train:
        stems = read_list(home / about.train, f"{path} names it")
    else:
        stems = [stem for stem in images if which == "all" or stem not in set(val)]
    pairs = []
    for stem in stems:
        # What is not there keeps the path where it was expected, for the error that names it.
        image = images.get(stem, home / about.images / stem)
        pairs.append((stem, image, masks.get(stem + about.mask_suffix, home / about.masks / f"{stem}{about.mask_suffix}.png")))
    return file_split(f"{home.resolve().name}/{which}", about.labels(), pairs, decoder(about), empty=f"look at {path} and its lists")


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
    found, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    ids = []
    for value, count in zip(found.tolist(), counts.tolist(), strict=True):
        colour = (value >> 16, value >> 8 & 255, value & 255)
        if colour not in table:
            raise DataError(f"{path}: colour {list(colour)} ({count} pixels) belongs to no class; add it to classes or ignore_colours")
        ids.append(table[colour])
    decoded: np.ndarray = np.array(ids, np.int32)[inverse.reshape(packed.shape)]
    return decoded


def decode_remapped(path: Path, table: dict[int, int], others: int | None) -> np.ndarray:
    """Class ids of a mask with other ids; DataError for ids without an entry unless `others` says what they become."""
    ids = read_ids(path)
    found, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    targets = []
    for value, count in zip(found.tolist(), counts.tolist(), strict=True):
        if value not in table and others is None:
            raise DataError(f"{path}: id {value} ({count} pixels) has no entry in remap; add it, or set `remap_others: ignore`")
        targets.append(table.get(value, others))
    remapped: np.ndarray = np.array(targets, np.int32)[inverse.reshape(ids.shape)]
    return remapped
