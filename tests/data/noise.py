"""Data sets whose masks or pictures are hard to decode, each with its truth."""

import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tests.data.layouts import (
    COLOURS,
    HEIGHT,
    IGNORED,
    WIDTH,
    Truth,
    fill,
    layout,
    named_layout,
    of_values,
    save,
    word,
)

Rng = np.random.Generator
GREY = np.array([0, 127, 255], np.uint8)


@layout
def jpeg_disc(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    """Write discs of 255 on 0 as JPEGs (2)."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        save(path, (ids > 0).astype(np.uint8) * 255, quality=90)
        return (np.asarray(Image.open(path)) >= 128).astype(np.uint8)

    return fill(root, rng, mask="masks/{id}.jpg", store=store, renamed=renamed)


@layout
def smooth_grey(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    """Write discs with smooth edges of every grey but those about the middle (2)."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        disc = Image.fromarray((ids > 0).astype(np.uint8) * 255)
        wide = disc.resize((4 * WIDTH, 4 * HEIGHT), Image.Resampling.BICUBIC)
        grey = np.asarray(wide.resize((WIDTH, HEIGHT), Image.Resampling.BOX)).copy()
        edge = (grey > 0) & (grey < 255)
        grey[edge] = grey[edge] // 2 + rng.integers(0, 128, edge.sum(), np.uint8)
        grey[(grey > 118) & (grey < 138)] = 138
        save(path, grey)
        return (grey >= 128).astype(np.uint8)

    return fill(root, rng, store=store, renamed=renamed)


@layout
def few_greys_jpeg(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    """Write 0, 127 and 255 as JPEGs; what lies half-way between two may be of either (2)."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        save(path, GREY[ids], quality=90)
        stored = np.asarray(Image.open(path)).astype(int)
        return np.abs(stored[..., None] - GREY.astype(int)).argmin(-1)

    truth = fill(root, rng, mask="masks/{id}.jpg", store=store, renamed=renamed)
    truth.slack = 0.002
    return truth


@layout
def noisy_colours(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    """Write colours that are up to three off."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        off = rng.integers(-3, 4, (*ids.shape, 3))
        save(path, (COLOURS[ids].astype(int) + off).clip(0, 255).astype(np.uint8))
        return ids

    return fill(root, rng, store=store, renamed=renamed)


@layout
def palettes_that_differ(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    """Write white discs on black, as index 1 in every other file and as index 0 in the rest (3)."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        disc = (ids > 0).astype(np.uint8)
        mask = Image.fromarray(disc if number % 2 else 1 - disc).convert("P")
        mask.putpalette([0, 0, 0, 255, 255, 255] if number % 2 else [255, 255, 255, 0, 0, 0])
        mask.save(path)
        return disc

    truth = fill(root, rng, store=store, renamed=renamed)
    truth.asks = True
    return truth


@layout
def one_palette(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    """Write palette files of the same colours, of which one file holds a class fewer."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        ids = np.where(ids == 2, 0, ids).astype(np.uint8) if number == 3 else ids
        mask = Image.fromarray(ids).convert("P")
        mask.putpalette(COLOURS.tobytes())
        mask.save(path)
        return ids

    return fill(root, rng, store=store, renamed=renamed)


@layout
def ids_in_alpha(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    """Write black RGBA with the label in alpha (4)."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        save(path, np.dstack([np.zeros((*ids.shape, 3), np.uint8), ids]))
        return ids

    truth = fill(root, rng, store=store, renamed=renamed)
    truth.asks = True
    return truth


def greys(*values: int) -> None:
    """Enter a data set whose background and two discs have these values (4)."""

    def generator(root: Path, rng: Rng, renamed: bool = False) -> Truth:
        truth = fill(root, rng, store=of_values(*values), renamed=renamed)
        truth.asks = True
        return truth

    generator.__name__ = f"greys_{'_'.join(map(str, values))}"
    layout(generator)


greys(255, 0, 127)
greys(0, 128, 255)


@layout
def zero_and_255(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    """Write discs of 255 on 0, exactly."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        save(path, (ids > 0).astype(np.uint8) * 255)
        return (ids > 0).astype(np.uint8)

    return fill(root, rng, store=store, renamed=renamed)


@layout
def void_255(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    """Write ids with a narrow frame of 255."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        truth = framed(ids)
        save(path, np.where(truth == IGNORED, 255, truth).astype(np.uint8))
        return truth

    return fill(root, rng, store=store, renamed=renamed)


def framed(ids: np.ndarray) -> np.ndarray:
    """Ignore a frame of two pixels."""
    truth = np.full(ids.shape, IGNORED)
    truth[2:-2, 2:-2] = ids[2:-2, 2:-2]
    return truth


@layout
def float_tiff(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    """Write ids as numbers of 32-bit floats (5)."""
    store = of_values(0, 1, 2, dtype=np.float32)
    return fill(root, rng, mask="masks/{id}.tif", store=store, renamed=renamed)


def no_data(value: int, dtype: type, name: str) -> None:
    """Enter a data set whose masks hold a negative number where nothing is known (5 and 10)."""

    def generator(root: Path, rng: Rng, renamed: bool = False) -> Truth:
        def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
            truth = np.where(ids == 2, IGNORED, ids.astype(int))
            save(path, np.where(truth == IGNORED, value, truth).astype(dtype))
            return truth

        return fill(root, rng, mask="masks/{id}.tif", store=store, renamed=renamed)

    generator.__name__ = name
    layout(generator)


no_data(-9999, np.int16, "no_data_9999")
no_data(-1, np.int32, "ids_from_minus_1")


@layout
def numpy_masks(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    store = of_values(0, 1, 2, dtype=np.int64)
    return fill(root, rng, mask="masks/{id}.npy", store=store, renamed=renamed)


@layout
def sparse_ids(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    return fill(root, rng, store=of_values(0, 999, 5000, dtype=np.uint16), renamed=renamed)


def orientation(tag: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif


def turned(tag: int, *, mask_too: bool, square: bool = False) -> None:
    """Enter a data set of pictures with an EXIF tag; masks fit those as shown or as stored.

    The truth has the orientation in which the two fit (5 and 6).
    """

    def generator(root: Path, rng: Rng, renamed: bool = False) -> Truth:
        def show(path: Path, pixels: np.ndarray) -> None:
            save(path, pixels, exif=orientation(tag))

        def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
            mask = Image.fromarray(ids)
            mask.getexif()[0x0112] = tag
            truth = np.asarray(ImageOps.exif_transpose(mask)) if mask_too else ids
            save(path, truth)
            return truth

        size = (HEIGHT, HEIGHT) if square else (HEIGHT, WIDTH)
        truth = fill(
            root, rng, store=store, show=show, drawn=True, size=size, renamed=renamed
        )  # fmt: skip
        truth.asks = square or tag == 3
        return truth

    shape = "_square" if square else ""
    generator.__name__ = f"exif_{tag}{shape}_mask_{'turned' if mask_too else 'as_stored'}"
    layout(generator)


for _mask_too in (False, True):
    turned(6, mask_too=_mask_too)
    turned(6, mask_too=_mask_too, square=True)
    turned(3, mask_too=_mask_too)


def depths(largest: int) -> None:
    """Enter a data set of grey pictures of 16 bits (12)."""

    def generator(root: Path, rng: Rng, renamed: bool = False) -> Truth:
        def show(path: Path, pixels: np.ndarray) -> None:
            save(path, (pixels[..., 0].astype(int) * largest // 255).astype(np.uint16))

        return fill(root, rng, picture="images/{id}.png", show=show, renamed=renamed)

    generator.__name__ = f"grey_to_{largest}"
    layout(generator)


depths(3999)
depths(65535)


@layout
def pictures_without_masks(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    """Write four pictures more than masks (13)."""
    truth = fill(root, rng, renamed=renamed)
    for path in [Path(path) for path in truth.masks][:4]:
        more = path.with_stem(word(rng, 9) if renamed else f"q{path.stem[1:]}")
        save(root / more, rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
        truth.outside.add(more.as_posix())
    return truth


@named_layout
def composed_and_decomposed(root: Path, rng: Rng) -> Truth:
    """Write names with an accent, composed for the pictures, decomposed for the masks (14)."""
    names = [f"caf\N{LATIN SMALL LETTER E WITH ACUTE} {number}" for number in range(10)]

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        save(path.with_name(unicodedata.normalize("NFD", path.name)), ids)
        return ids

    return fill(root, rng, names=names, store=store)


def all_zero(root: Path, rng: Rng) -> list[str]:
    """Write masks of one class (4); return what must be named."""
    fill(root, rng, store=of_values(0, 0, 0))
    return ["masks"]


def without_content(root: Path, rng: Rng) -> list[str]:
    """Write ten pairs, five masks of which are empty files (9); return what must be named."""
    truth = fill(root, rng)
    names = [f"masks/{Path(path).stem}.png" for path in truth.masks][::2]
    for name in names:
        (root / name).write_bytes(b"")
    return names
