"""Folders of good pairs, stored in every way that is no error, with errors of every kind planted among them."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, IGNORE = 4, 254
HEIGHT, WIDTH = 12, 16

Planted = set[tuple[str, str]]
"""(file below the folder, kind of error)"""


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(
    width: int, height: int, *, before: bytes = b"", after: bytes = b"", pixels: bytes | None = None
) -> bytes:
    """An RGB PNG that declares this size, with chunks before and after its pixels (`pixels`: compressed; None: black)."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = zlib.compress(bytes((1 + 3 * width) * height)) if pixels is None else pixels
    return (
        b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")
    )


def plant(root: Path, pairs: int, errors: int, seed: int = 0) -> tuple[Planted, dict[str, int]]:
    """Write `pairs` pairs as a folder with train.txt and val.txt (every fifth), and plant `errors` errors, as many of each kind.

    Returns what was planted, and of each untouched pair how many notes it deserves.
    """
    rng = np.random.default_rng(seed)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    names = [f"p{number:05d}" for number in range(pairs)]
    files, notes = {}, {}
    for number, name in enumerate(names):
        files[name], notes[name] = _good(root, name, rng, number)
    chosen = rng.permutation(pairs)[:errors].tolist()
    lists = {"train": [name for index, name in enumerate(names) if index % 5], "val": names[::5]}
    planted: Planted = set()
    for turn, index in enumerate(chosen):
        name = names[index]
        kind = list(ERRORS)[turn % len(ERRORS)]
        planted |= {
            (file, kind.partition(" ")[0]) for file in ERRORS[kind](root, files[name], rng, lists)
        }
        del notes[name]
    for part, stems in lists.items():
        (root / f"{part}.txt").write_text("\n".join(stems) + "\n")
    (root / "seenet.yaml").write_text(
        f"decode: index\nignore: {IGNORE}\ntrain: train.txt\nval: val.txt\nclasses: [{', '.join(f'c{k}' for k in range(CLASSES))}]\n"
    )
    return planted, notes


def _good(root: Path, name: str, rng: np.random.Generator, number: int) -> tuple[Path, int]:
    """A pair without error, stored in one of many ways; returns the picture's file and how many notes it deserves."""
    image = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    mask = rng.integers(0, CLASSES, (HEIGHT, WIDTH), dtype=np.uint8)
    mask[0] = IGNORE
    Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    exif = Image.Exif()
    exif[0x0112] = 3
    wide = Image.fromarray(rng.integers(0, 2**16, (HEIGHT, WIDTH), dtype=np.uint16))
    suffix, stored, options, notes = (
        (".png", image, {}, 0),
        (".jpg", image, {"quality": 95}, 0),
        (".png", wide, {}, 2),
        (".png", image.convert("L"), {}, 1),
        (".png", image.quantize(32), {}, 1),
        (".png", image.convert("RGBA"), {}, 1),
        (".jpg", image.convert("CMYK"), {"quality": 95}, 1),
        (".jpg", image, {"exif": exif}, 1),
        (".tif", image, {"compression": "tiff_lzw"}, 0),
        (".webp", image, {"lossless": True}, 0),
        (".bmp", image, {}, 0),
    )[number % 11]
    path = root / "images" / f"{name}{suffix}"
    stored.save(path, **options)
    return path, notes


Lists = dict[str, list[str]]
Error = Callable[[Path, Path, np.random.Generator, Lists], list[str]]


def _below(root: Path, path: Path) -> list[str]:
    return [path.relative_to(root).as_posix()]


def _mask(root: Path, image: Path) -> Path:
    return root / "masks" / f"{image.stem}.png"


def _of_picture(change: Callable[[Path], object]) -> Error:
    def error(root: Path, image: Path, rng: np.random.Generator, lists: Lists) -> list[str]:
        change(image)
        return _below(root, image)

    return error


def _of_mask(change: Callable[[Path], object]) -> Error:
    def error(root: Path, image: Path, rng: np.random.Generator, lists: Lists) -> list[str]:
        change(_mask(root, image))
        return _below(root, _mask(root, image))

    return error


def _ids(change: Callable[[np.ndarray], np.ndarray]) -> Error:
    def rewrite(path: Path) -> None:
        with Image.open(path) as mask:
            ids = np.array(mask)
        Image.fromarray(change(ids)).save(path)

    return _of_mask(rewrite)


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _animate(path: Path) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


def _turn(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(list(path.name.encode())).integers(
        0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8
    )
    Image.fromarray(noise).save(path, "PNG", exif=exif)


def _turned(root: Path, image: Path, rng: np.random.Generator, lists: Lists) -> list[str]:
    """A picture that a camera turned, and a mask drawn on what lies in the file."""
    _turn(image)
    return _below(root, _mask(root, image))


def _strange(ids: np.ndarray) -> np.ndarray:
    ids[3, 3:7] = CLASSES + 2
    return ids


def _again(where: str) -> Error:
    """The same pixels once more, as a PNG, at the end of a list; of a picture of the other list where that is a leak."""

    def error(root: Path, image: Path, rng: np.random.Generator, lists: Lists) -> list[str]:
        home = "train" if image.stem in lists["train"] else "val"
        target = home if where == "same" else {"train": "val", "val": "train"}[home]
        copy = root / "images" / f"z-{where}-{image.stem}.png"
        with Image.open(image) as source:
            orientation = source.getexif().get(0x0112, 1)
            source.load()
            deep = source.mode == "I;16"
            pixels = (
                source.copy()
                if deep
                else source.convert("RGBA" if source.mode == "P" else "RGB").convert("RGB")
            )
        (pixels.rotate(180) if orientation == 3 else pixels).save(copy)
        (root / "masks" / copy.name).write_bytes(_mask(root, image).read_bytes())
        lists[target].append(copy.stem)
        # Both files are good; the one that is read later is named, and train is read first.
        later = copy if where == "same" or target == "val" else image
        return _below(root, later)

    return error


def _alone(root: Path, image: Path, rng: np.random.Generator, lists: Lists) -> list[str]:
    """A mask whose picture is neither there nor listed."""
    for stems in lists.values():
        if image.stem in stems:
            stems.remove(image.stem)
    image.unlink()
    return _below(root, _mask(root, image))


def _lost(root: Path, image: Path, rng: np.random.Generator, lists: Lists) -> list[str]:
    """A picture that a list still names; where it should be is known without its suffix."""
    image.unlink()
    return _below(root, image.with_suffix(""))


ERRORS: dict[str, Error] = {
    "damaged picture": _of_picture(_cut),
    "damaged mask": _of_mask(_cut),
    "empty picture": _of_picture(lambda path: path.write_bytes(b"")),
    "empty mask": _of_mask(lambda path: path.write_bytes(b"")),
    "format picture": _of_picture(lambda path: path.write_text("<html>404 not found</html>")),
    "format mask": _of_mask(lambda path: path.write_bytes(b"\x00\x01" + path.read_bytes())),
    "animated picture": _of_picture(_animate),
    "animated mask": _of_mask(_animate),
    "large picture": _of_picture(lambda path: path.write_bytes(png_of(60_000, 60_000, pixels=b""))),
    "large mask": _of_mask(lambda path: path.write_bytes(png_of(2**31 - 1, 2**31 - 1, pixels=b""))),
    "ids strange": _ids(_strange),
    "mask-kind 0/255": _ids(lambda ids: np.where(ids % 2 == 0, 0, 255).astype(np.uint8)),
    "ids labelIds": _ids(lambda ids: np.where(ids == IGNORE, 0, ids * 11).astype(np.uint8)),
    "mask-kind RGB": _of_mask(
        lambda path: Image.new("RGB", (WIDTH, HEIGHT), (128, 64, 128)).save(path)
    ),
    "size mask": _ids(lambda ids: ids[1:]),
    "size turned": _turned,
    "missing mask": _of_mask(Path.unlink),
    "missing picture": _lost,
    "missing alone": _alone,
    "duplicate": _again("same"),
    "leak": _again("other"),
}
