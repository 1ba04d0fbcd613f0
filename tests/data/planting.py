"""Folders of good pairs, stored in every valid way, with errors of every kind planted in them."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

CLASSES, IGNORE = 4, 254
HEIGHT, WIDTH = 12, 16

Planted = set[tuple[str, str]]
"""(file below the folder, kind of error)"""
Lists = dict[str, list[str]]
"""Stems of train and val."""


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(
    width: int, height: int, *, before: bytes = b"", after: bytes = b"", pixels: bytes | None = None
) -> bytes:
    """Return an RGB PNG that declares this size, with chunks before and after its pixels.

    `pixels`: compressed; None: black.
    """
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = zlib.compress(bytes((1 + 3 * width) * height)) if pixels is None else pixels
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", data) + after + end


class Pair(NamedTuple):
    """Files of a pair, and the lists that may name it."""

    root: Path
    image: Path
    mask: Path
    lists: Lists


def plant(root: Path, pairs: int, errors: int, seed: int = 0) -> tuple[Planted, dict[str, int]]:
    """Write pairs with train.txt and val.txt (every fifth), and plant errors of each kind in turn.

    Returns:
        The errors, and the number of notes that each untouched pair deserves.
    """
    rng = np.random.default_rng(seed)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    names = [f"p{number:05d}" for number in range(pairs)]
    lists = {"train": [name for index, name in enumerate(names) if index % 5], "val": names[::5]}
    written = [_write_pair(root, name, rng, index, lists) for index, name in enumerate(names)]
    notes = {name: count for name, (_, count) in zip(names, written, strict=True)}
    planted: Planted = set()
    for number, index in enumerate(rng.permutation(pairs)[:errors].tolist()):
        kind = list(ERRORS)[number % len(ERRORS)]
        pair = written[index][0]
        file = ERRORS[kind](pair) or (pair.image if kind.endswith("picture") else pair.mask)
        planted.add((file.relative_to(root).as_posix(), kind.partition(" ")[0]))
        del notes[names[index]]
    for part, stems in lists.items():
        (root / f"{part}.txt").write_text("\n".join(stems) + "\n")
    classes = ", ".join(f"c{k}" for k in range(CLASSES))
    (root / "seenet.yaml").write_text(
        f"decode: index\nignore: {IGNORE}\ntrain: train.txt\nval: val.txt\nclasses: [{classes}]\n"
    )
    return planted, notes


def _write_pair(
    root: Path, name: str, rng: np.random.Generator, number: int, lists: Lists
) -> tuple[Pair, int]:
    """Write a good pair in one of many ways; return it with the number of notes it deserves."""
    image = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    ids = rng.integers(0, CLASSES, (HEIGHT, WIDTH), dtype=np.uint8)
    ids[0] = IGNORE
    wide = Image.fromarray(rng.integers(0, 2**16, (HEIGHT, WIDTH), dtype=np.uint16))
    suffix, stored, options, notes = (
        (".png", image, {}, 0),
        (".jpg", image, {"quality": 95}, 0),
        (".png", wide, {}, 2),
        (".png", image.convert("L"), {}, 1),
        (".png", image.quantize(32), {}, 1),
        (".png", image.convert("RGBA"), {}, 1),
        (".jpg", image.convert("CMYK"), {"quality": 95}, 1),
        (".jpg", image, {"exif": _orientation(3)}, 1),
        (".tif", image, {"compression": "tiff_lzw"}, 0),
        (".webp", image, {"lossless": True}, 0),
        (".bmp", image, {}, 0),
    )[number % 11]
    pair = Pair(root, root / "images" / f"{name}{suffix}", root / "masks" / f"{name}.png", lists)
    stored.save(pair.image, **options)
    Image.fromarray(ids).save(pair.mask)
    return pair, notes


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _animate(path: Path) -> None:
    first, second = (Image.new("RGB", (WIDTH, HEIGHT), (shade, 0, 0)) for shade in (0, 200))
    first.save(path, "GIF", save_all=True, append_images=[second])


def _change_ids(pair: Pair, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with Image.open(pair.mask) as mask:
        ids = np.array(mask)
    Image.fromarray(change(ids)).save(pair.mask)


def _strange(ids: np.ndarray) -> np.ndarray:
    ids[3, 3:7] = CLASSES + 2
    return ids


def _turn(pair: Pair) -> None:
    """Turn the image by its tag; the mask stays drawn on the stored pixels."""
    rng = np.random.default_rng(list(pair.image.name.encode()))
    noise = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    noise.save(pair.image, "PNG", exif=_orientation(6))


def _again(pair: Pair, *, leak: bool) -> Path:
    """Add the same pixels once more, as a PNG, to the same list or to the other one (a leak)."""
    in_train = pair.image.stem in pair.lists["train"]
    copy = pair.root / "images" / f"z-{leak}-{pair.image.stem}.png"
    with Image.open(pair.image) as source:
        turned = source.getexif().get(0x0112, 1) == 3
        source.load()
        if source.mode != "I;16":
            source = source.convert("RGBA" if source.mode == "P" else "RGB").convert("RGB")
        (source.rotate(180) if turned else source).save(copy)
    (pair.root / "masks" / copy.name).write_bytes(pair.mask.read_bytes())
    pair.lists["train" if in_train != leak else "val"].append(copy.stem)
    # The file that is read later is named, and train is read first.
    return pair.image if leak and not in_train else copy


def _leave_mask_alone(pair: Pair) -> None:
    """Remove an image and its name in the lists."""
    for stems in pair.lists.values():
        if pair.image.stem in stems:
            stems.remove(pair.image.stem)
    pair.image.unlink()


def _lose_image(pair: Pair) -> Path:
    """Remove an image that a list still names; its suffix is unknown then."""
    pair.image.unlink()
    return pair.image.with_suffix("")


ERRORS: dict[str, Callable[[Pair], Path | None]] = {
    "damaged picture": lambda pair: _cut(pair.image),
    "damaged mask": lambda pair: _cut(pair.mask),
    "empty picture": lambda pair: _write(pair.image, b""),
    "empty mask": lambda pair: _write(pair.mask, b""),
    "format picture": lambda pair: _write(pair.image, b"<html>404 not found</html>"),
    "format mask": lambda pair: _write(pair.mask, b"\x00\x01" + pair.mask.read_bytes()),
    "animated picture": lambda pair: _animate(pair.image),
    "animated mask": lambda pair: _animate(pair.mask),
    "large picture": lambda pair: _write(pair.image, png_of(60_000, 60_000, pixels=b"")),
    "large mask": lambda pair: _write(pair.mask, png_of(2**31 - 1, 2**31 - 1, pixels=b"")),
    "ids strange": lambda pair: _change_ids(pair, _strange),
    "mask-kind 0/255": lambda pair: _change_ids(
        pair, lambda ids: np.where(ids % 2 == 0, 0, 255).astype(np.uint8)
    ),
    "ids labelIds": lambda pair: _change_ids(
        pair, lambda ids: np.where(ids == IGNORE, 0, ids * 11).astype(np.uint8)
    ),
    "mask-kind RGB": lambda pair: Image.new("RGB", (WIDTH, HEIGHT), (128, 64, 128)).save(pair.mask),
    "size mask": lambda pair: _change_ids(pair, lambda ids: ids[1:]),
    "size turned": _turn,
    "missing mask": lambda pair: pair.mask.unlink(),
    "missing picture": _lose_image,
    "missing alone": _leave_mask_alone,
    "duplicate": lambda pair: _again(pair, leak=False),
    "leak": lambda pair: _again(pair, leak=True),
}
"""Kind of each error with a word on it, and the change that plants it.

The change may return the file that the error names; else it is the picture or the mask.
"""
