"""Data sets as people bring them, each with the truth about it: layouts, and rules of names.

Each generator writes a data set into a folder and returns its truth, which the tests compare with
what is read. `noise.py` has files that are hard to decode, `beside.py` lists that lie beside the
pictures, `annotated.py` other forms of labels than masks.
"""

import re
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from tests.core.tiffs import Page, tiff_of

IGNORED = -1
HEIGHT, WIDTH = 96, 128
PARTS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Folder of a split -> the split."""
COLOURS = np.array([(0, 0, 0), (230, 25, 75), (60, 180, 75), (0, 130, 200)], np.uint8)


@dataclass
class Truth:
    """What a reader of a data set has to find."""

    masks: dict[str, np.ndarray] = field(default_factory=dict)
    """Picture below the root -> label of each pixel, IGNORED where none is to be learned."""
    split: dict[str, str] = field(default_factory=dict)
    """Split of each picture, where the data set says it."""
    outside: set[str] = field(default_factory=set)
    """Pictures that may be in neither train nor val, beside those of the split test."""
    classes: dict[int, str] = field(default_factory=dict)
    """Label -> name, where the data set names it; no mask need hold it."""
    named: tuple[str, ...] = ()
    """Folders and files that `data init` passes over, and names."""
    asks: bool = False
    """Whether a question is allowed."""
    drawn: bool = False
    """Whether the pictures show the labels: 1 is red, 2 is blue."""
    slack: float = 0.0
    """Share of a picture's pixels that may differ."""


class Generator(Protocol):
    """Write a data set; `renamed` exchanges names of folders and files for random ones."""

    def __call__(self, root: Path, rng: np.random.Generator, renamed: bool = False) -> Truth: ...


LAYOUTS: dict[str, Callable[[Path, np.random.Generator], Truth]] = {}
"""All data sets that are read right."""


def layout(generator: Generator) -> Generator:
    """Enter a generator, once with its own names and once with random ones."""
    name = generator.__name__  # type: ignore[attr-defined]
    LAYOUTS[name] = generator
    LAYOUTS[f"{name}-renamed"] = partial(generator, renamed=True)
    return generator


def named_layout(generator: Callable[[Path, np.random.Generator], Truth]) -> Callable[..., Truth]:
    """Enter a generator whose names are its point."""
    LAYOUTS[generator.__name__] = generator
    return generator


def word(rng: np.random.Generator, length: int = 7) -> str:
    return "".join(rng.choice(list(string.ascii_lowercase), length))


def rename(rng: np.random.Generator, *templates: str) -> list[str]:
    """Exchange the words in templates of paths, the same word always for the same other one."""
    words: dict[str, str] = {}
    kept = re.compile(r"(\{\w+\}|(?:\.\w+)+$)")

    def other(found: re.Match[str]) -> str:
        new = words.setdefault(found[0].lower(), word(rng))
        return new.upper() if found[0].isupper() else new

    return [
        "".join(
            part if kept.fullmatch(part) else re.sub(r"\d*[A-Za-z][^\W_]*", other, part)
            for part in kept.split(template)
        )
        for template in templates
    ]


def stems(rng: np.random.Generator, count: int, renamed: bool) -> list[str]:
    return [word(rng, 9) if renamed else f"p{number:02d}" for number in range(count)]


def scene(
    rng: np.random.Generator, drawn: bool = False, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of random blocks of 8 x 8, and a mask with a disc of 1 and one of 2."""
    height, width = size
    blocks = rng.integers(0, 120 if drawn else 256, (height // 8, width // 8, 3), np.uint8)
    picture = blocks.repeat(8, 0).repeat(8, 1)
    ids = np.zeros(size, np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for half, label in enumerate(rng.permutation([1, 2])):
        radius = rng.integers(10, 19)
        row = rng.integers(radius + 2, height - radius - 2)
        column = half * width // 2 + rng.integers(radius + 2, width // 2 - radius - 2)
        ids[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = label
    if drawn:
        picture[ids == 1, 0], picture[ids == 2, 2] = 250, 250
    return picture, ids


def save(path: Path, pixels: np.ndarray, **options: object) -> None:
    """Write an array as a picture, as .npy, or as a TIFF of any type of numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix == ".tif" and pixels.dtype != np.uint8:
        path.write_bytes(tiff_of(Page(pixels)))
    else:
        if path.suffix.lower() in {".jpg", ".jpeg"}:
            options = {"quality": 95, **options}
        Image.fromarray(pixels).save(path, **options)


def save_ids(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
    save(path, ids)
    return ids


def save_colours(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
    save(path, COLOURS[ids])
    return ids


def of_values(*values: int, dtype: type = np.uint8) -> Callable[..., np.ndarray]:
    """Return a function that writes 0, 1 and 2 as these values."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        save(path, np.array(values, dtype)[ids])
        return ids

    return store


def fill(
    root: Path,
    rng: np.random.Generator,
    picture: str = "images/{id}.jpg",
    mask: str = "masks/{id}.png",
    splits: str = "",
    *,
    count: int = 10,
    renamed: bool = False,
    names: list[str] | None = None,
    store: Callable[[Path, np.ndarray, int], np.ndarray] = save_ids,
    show: Callable[[Path, np.ndarray], None] = save,
    drawn: bool = False,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> Truth:
    """Write pairs by templates of their paths with {id}, {split} and {city}.

    Args:
        splits: folders of splits; a `-` before one: its pictures have no masks.
        count: number of pairs; of each split but the first there are four.
        store: writes a mask and returns its truth.
        show: writes a picture.
    """
    truth = Truth(drawn=drawn)
    if renamed:
        picture, mask = rename(rng, picture, mask)
    for part_number, part in enumerate(splits.split() or [""]):
        folder = part.lstrip("-")
        truth.named += (folder,) * part.startswith("-")
        number_of = count if part_number == 0 else 4
        ids = (names or stems(rng, 100, renamed))[10 * part_number :]
        for number, name in enumerate(ids[:number_of]):
            values = {"id": name, "split": folder, "city": f"city{part_number}{number % 3}"}
            path = picture.format(**values)
            pixels, labels = scene(rng, drawn, size)
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            show(root / path, pixels)
            if part.startswith("-"):
                truth.outside.add(path)
                continue
            target = root / mask.format(**values)
            target.parent.mkdir(parents=True, exist_ok=True)
            truth.masks[path] = store(target, labels, number).astype(int)
            if folder and len(splits.split()) > 1:
                truth.split[path] = PARTS[folder]
    # Where all other folders have no masks, a part of the first is held back.
    if set(truth.split.values()) <= {"train"}:
        truth.split = {}
    return truth


# Templates of pictures and masks, and folders of splits: -test has no masks.
SPLIT_FIRST = {
    "train_images_masks": ("{split}/images/{id}.jpg", "{split}/masks/{id}.png", "train val test"),
    "training_validation": ("{split}/img/{id}.jpg", "{split}/gt/{id}.png", "training validation"),
    "train_valid_test": ("{split}/img/{id}.png", "{split}/seg/{id}.png", "train valid test"),
    "train_labels": ("{split}/{id}.png", "{split}_labels/{id}_L.png", "train val test"),
    "train_masks_val": ("{split}/{id}.jpg", "{split}_masks/{id}.png", "train val"),
    "train_masks_only": ("{split}/{id}.jpg", "{split}_masks/{id}_mask.gif", "train -test"),
    "train_in_one_folder": ("{split}/{id}.jpg", "{split}/{id}_mask.png", "train"),
    "train_val_in_one_folder": ("{split}/{id}.jpg", "{split}/{id}_mask.png", "train val"),
    "train_annot": ("{split}/{id}.png", "{split}annot/{id}.png", "train val test"),
    "images_below": ("images/{split}/{id}.jpg", "labels/{split}/{id}.png", "training validation"),
    "valid_beside_test": ("images/{split}/{id}.jpg", "masks/{split}/{id}.png", "train valid test"),
    "mmsegmentation": ("img_dir/{split}/{id}.jpg", "ann_dir/{split}/{id}.png", "train val"),
    "cities": ("frames/{split}/{city}/{id}.jpg", "truth/{split}/{city}/{id}.png", "train val"),
    "below_one_folder": ("set/{split}/images/{id}.jpg", "set/{split}/masks/{id}.png", "train val"),
}  # fmt: skip
PAIRING = {
    "same_names": ("images/{id}.jpg", "masks/{id}.png"),
    "prefix": ("images/{id}.jpg", "masks/mask_{id}.png"),
    "prefix_of_picture": ("images/img_{id}.jpg", "masks/{id}.png"),
    "suffix": ("images/{id}.jpg", "masks/{id}_mask.png"),
    "suffix_of_picture": ("images/{id}_sat.jpg", "masks/{id}.png"),
    "both_suffixes": ("images/{id}_image.jpg", "annotations/{id}_annotation.png"),
    "both_prefixes": ("images/image-{id}.jpg", "labels/label-{id}.png"),
    "one_folder": ("data/{id}_sat.jpg", "data/{id}_mask.png"),
    "one_folder_same_names": ("data/{id}.jpg", "data/{id}.png"),
    "at_the_top": ("{id}.jpg", "{id}.png"),
    "at_the_top_1stHO": ("Image_{id}L.jpg", "Image_{id}L_1stHO.png"),
    "suffix_L": ("701_StillsRaw_full/{id}.png", "LabeledApproved_full/{id}_L.png"),
    "two_suffixes": ("images/{id}.jpg", "masks/{id}.jpg.png"),
    "other_case": ("images/IMG_{id}.JPG", "masks/img_{id}.png"),
    "deeper": ("set/raw/2024/images/{id}.jpg", "set/raw/2024/masks/{id}.png"),
}


def _of_table(root: Path, rng: np.random.Generator, renamed: bool = False, *, row: tuple) -> Truth:
    return fill(root, rng, *row, renamed=renamed)


for _name, _row in [*SPLIT_FIRST.items(), *PAIRING.items()]:
    LAYOUTS[_name] = partial(_of_table, row=_row)
    LAYOUTS[f"{_name}-renamed"] = partial(_of_table, row=_row, renamed=True)


@layout
def unpadded_numbers(root: Path, rng: np.random.Generator, renamed: bool = False) -> Truth:
    """Write names of which one is the start of another."""
    names = [str(number) for number in range(1, 13)]
    rows = ("images/{id}.jpg", "masks/{id}_1.png")
    return fill(root, rng, *rows, count=12, names=names, renamed=renamed)


@layout
def color_mask(root: Path, rng: np.random.Generator, renamed: bool = False) -> Truth:
    row = ("pictures/{id}.jpg", "pictures/{id}_color_mask.png")
    return fill(root, rng, *row, store=save_colours, renamed=renamed)


@layout
def colours_beside_ids(root: Path, rng: np.random.Generator, renamed: bool = False) -> Truth:
    """Write ids, and the same in colours, in a folder that comes first in the alphabet (1a)."""
    pictures, labels, colours = ("images", "labels", "color")
    if renamed:
        pictures, labels, colours = (word(rng) for _ in range(3))
    if renamed and rng.integers(2):
        labels, colours = f"z{labels}", f"a{colours}"

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        save(root / colours / path.name, COLOURS[ids])
        return save_ids(path, ids, number)

    truth = fill(root, rng, f"{pictures}/{{id}}.jpg", f"{labels}/{{id}}.png", store=store)
    truth.named = (labels, colours)
    return truth


@layout
def shifted_ids_beside_ids(root: Path, rng: np.random.Generator, renamed: bool = False) -> Truth:
    """Write ids, and ids less one modulo 256 in a second folder (1b)."""
    labels = word(rng) if renamed else "annotations"
    others = word(rng) if renamed else "annotations_detectron2"
    pictures = word(rng) if renamed else "images"

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        save(root / others / path.name, ids - np.uint8(1))
        return save_ids(path, ids, number)

    truth = fill(root, rng, f"{pictures}/{{id}}.jpg", f"{labels}/{{id}}.png", store=store)
    truth.named = (others,)
    return truth


@layout
def field_of_view(root: Path, rng: np.random.Generator, renamed: bool = False) -> Truth:
    """Write vessels drawn by hand, and the camera's field of view in a second folder (1c)."""
    pictures, manual, view = ("images", "1st_manual", "mask")
    if renamed:
        pictures, manual, view = (word(rng) for _ in range(3))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    seen = (rows - HEIGHT / 2) ** 2 + (columns - WIDTH / 2) ** 2 < (HEIGHT / 2 - 2) ** 2

    def show(path: Path, pixels: np.ndarray) -> None:
        save(path, pixels * seen[..., None].astype(np.uint8))

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        vessels = (ids > 0) & seen
        save(path, (vessels * 255).astype(np.uint8))
        name = path.name.replace("_manual1", "_training_mask")
        save(root / view / name, (seen * 255).astype(np.uint8))
        return vessels.astype(np.uint8)

    rule = (f"{pictures}/{{id}}_training.tif", f"{manual}/{{id}}_manual1.gif")
    names = [str(number) for number in range(21, 31)]
    truth = fill(root, rng, *rule, names=names, store=store, show=show)
    truth.asks, truth.named = True, (view,)
    return truth
