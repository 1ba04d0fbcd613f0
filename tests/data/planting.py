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
    """Files of a pair; an error that is planted changes them or the lists, and names a file."""

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
        file = ERRORS[kind](written[index][0])
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


Error = Callable[[Pair], Path]


def _file(which: str, change: Callable[[Path], object]) -> Error:
    """Change the `image` or the `mask` of a pair."""

    def error(pair: Pair) -> Path:
        path: Path = getattr(pair, which)
        change(path)
        return path

    return error


def _ids(change: Callable[[np.ndarray], np.ndarray]) -> Error:
    def rewrite(path: Path) -> None:
        with Image.open(path) as mask:
            ids = np.array(mask)
        Image.fromarray(change(ids)).save(path)

    return _file("mask", rewrite)


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _animate(path: Path) -> None:
    first, second = (Image.new("RGB", (WIDTH, HEIGHT), (shade, 0, 0)) for shade in (0, 200))
    first.save(path, "GIF", save_all=True, append_images=[second])


def _strange(ids: np.ndarray) -> np.ndarray:
    ids[3, 3:7] = CLASSES + 2
    return ids


def _turned(pair: Pair) -> Path:
    """Turn the image by its tag; the mask stays drawn on the stored pixels."""
    rng = np.random.default_rng(list(pair.image.name.encode()))
    noise = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    noise.save(pair.image, "PNG", exif=_orientation(6))
    return pair.mask


def _again(where: str) -> Error:
    """Add the same pixels once more, as a PNG, to the same list or to the other one (a leak)."""

    def error(pair: Pair) -> Path:
        home = "train" if pair.image.stem in pair.lists["train"] else "val"
        target = home if where == "same" else {"train": "val", "val": "train"}[home]
        copy = pair.root / "images" / f"z-{where}-{pair.image.stem}.png"
        with Image.open(pair.image) as source:
            turned = source.getexif().get(0x0112, 1) == 3
            source.load()
            if source.mode != "I;16":
                source = source.convert("RGBA" if source.mode == "P" else "RGB").convert("RGB")
            (source.rotate(180) if turned else source).save(copy)
        (pair.root / "masks" / copy.name).write_bytes(pair.mask.read_bytes())
        pair.lists[target].append(copy.stem)
        # The file that is read later is named, and train is read first.
        return copy if where == "same" or target == "val" else pair.image

    return error


def _alone(pair: Pair) -> Path:
    """Leave a mask whose image is neither there nor listed."""
    for stems in pair.lists.values():
        if pair.image.stem in stems:
            stems.remove(pair.image.stem)
    pair.image.unlink()
    return pair.mask


def _lost(pair: Pair) -> Path:
    """Remove an image that a list still names; its suffix is unknown then."""
    pair.image.unlink()
    return pair.image.with_suffix("")


ERRORS: dict[str, Error] = {
    "damaged picture": _file("image", _cut),
    "damaged mask": _file("mask", _cut),
    "empty picture": _file("image", lambda path: path.write_bytes(b"")),
    "empty mask": _file("mask", lambda path: path.write_bytes(b"")),
    "format picture": _file("image", lambda path: path.write_text("<html>404 not found</html>")),
    "format mask": _file("mask", lambda path: path.write_bytes(b"\x00\x01" + path.read_bytes())),
    "animated picture": _file("image", _animate),
    "animated mask": _file("mask", _animate),
    "large picture": _file(
        "image", lambda path: path.write_bytes(png_of(60_000, 60_000, pixels=b""))
    ),
    "large mask": _file(
        "mask", lambda path: path.write_bytes(png_of(2**31 - 1, 2**31 - 1, pixels=b""))
    ),
    "ids strange": _ids(_strange),
    "mask-kind 0/255": _ids(lambda ids: np.where(ids % 2 == 0, 0, 255).astype(np.uint8)),
    "ids labelIds": _ids(lambda ids: np.where(ids == IGNORE, 0, ids * 11).astype(np.uint8)),
    "mask-kind RGB": _file(
        "mask", lambda path: Image.new("RGB", (WIDTH, HEIGHT), (128, 64, 128)).save(path)
    ),
    "size mask": _ids(lambda ids: ids[1:]),
    "size turned": _turned,
    "missing mask": _file("mask", Path.unlink),
    "missing picture": _lost,
    "missing alone": _alone,
    "duplicate": _again("same"),
    "leak": _again("other"),
}
