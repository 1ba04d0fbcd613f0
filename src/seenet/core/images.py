"""The one decoder: pictures and masks as arrays, checked before they are decoded."""

import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.Image import Transpose
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from seenet.core.errors import DataError
from seenet.core.files import replacing
from seenet.core.image_files import BROKEN, SCALE, safe_image_open, tiff_value_type, too_large
from seenet.core.image_files import MAX_PIXELS as MAX_PIXELS
from seenet.core.labels import LabelSet
from seenet.core.metadata import ORIENTATION, png_chunks, stored_orientation

IMAGE_SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pcx", ".pgm", ".png"}
    | {".pnm", ".ppm", ".psd", ".sgi", ".tga", ".tif", ".tiff", ".webp"}
)
"""What counts as a picture when a folder is listed."""

_WIDE = {"I;16", "I;16B", "I;16L", "I;16N"}
_SIDEWAYS = (5, 6, 7, 8)
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
}  # fmt: skip
_MULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
"""Colours that were multiplied by their alpha, and what they are without that."""
_WHITE_IS_ZERO = 0


@dataclass(frozen=True)
class Header:
    """What a picture file says before it is decoded: height and width after EXIF rotation, Pillow's mode as stored, and what will be
    converted or dropped (`16-bit`, `grey`, `palette`, `alpha`, `CMYK`, `EXIF orientation 6`).
    """

    size: tuple[int, int]
    mode: str
    notes: tuple[str, ...]


def read_header(path: Path) -> Header:
    """Read the header of any picture, without decoding it. DataError as for `read_image`, as far as the header tells."""
    with safe_image_open(path) as image:
        turn = orientation(image)
        # By a TIFF's own tag Pillow has turned its size already.
        tag = image.tag_v2.get(ORIENTATION) if isinstance(image, TiffImageFile) else None
        sideways = turn in _SIDEWAYS and tag not in _SIDEWAYS
        return Header(image.size if sideways else image.size[::-1], image.mode, _notes(image, turn))


def image_size(path: Path) -> tuple[int, int]:
    """Read height and width after EXIF rotation from the header alone. DataError as for `read_image`."""
    return read_header(path).size


def orientation(image: Image.Image) -> int:
    """Read how an image says that it is turned, 1 to 8; 1 where that cannot be read."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except BROKEN:
        # An image of the user's own, with metadata that Pillow stumbles over; the next time it gives what it has by then.
        found = stored_orientation(image)
        image.getexif()[ORIENTATION] = found
    return int(found) if found in range(2, 9) else 1


def _notes(image: Image.Image, turn: int) -> tuple[str, ...]:
    # Colours of 16 bits have no mode of their own: the readers take their high bytes.
    deep = any(part in str(tile) for tile in getattr(image, "tile", ()) for part in ("'RGB;16", "'RGBA;16", "'RGBX;16", "'LA;16"))
    wide = image.mode in _WIDE or (image.mode == "I" and not value_type(image))
    found = {
        "16-bit": wide or deep,
        "32-bit": image.mode in {"I", "F"} and not wide,
        "grey": image.mode in {*_WIDE, "1", "L", "LA", "La", "I", "F"},
        "palette": image.mode in {"P", "PA"},
        "alpha": image.mode in {"LA", "PA", "RGBA", "La", "RGBa"} or "transparency" in image.info,
        image.mode: image.mode in {"CMYK", "YCbCr", "LAB", "HSV"},
        f"EXIF orientation {turn}": turn != 1,
    }
    return tuple(note for note, holds in found.items() if holds)


def read_image(path: Path) -> np.ndarray:
    """Decode any picture: JPEG, PNG, TIFF, WebP and what else `image_files.FORMATS` lists.

    It is rotated by EXIF. Grey of 12 or 16 bits goes to the scale of 0 to 255, of 16-bit colours the high byte is taken;
    grey, palette and CMYK are converted, alpha is dropped.

    Returns:
        H x W x 3 uint8 RGB.

    Raises:
        DataError: Missing, empty, unreadable, truncated, animated, or over the pixel limit.
    """
    with safe_image_open(path) as image:
        return from_pil(image, str(path))


def read_encoded(content: bytes, name: str) -> np.ndarray:
    """Decode a picture file in memory as `read_image` does; `name` stands in its errors."""
    with safe_image_open(Path(name), content) as image:
        return from_pil(image, name)


def from_pil(image: Image.Image, name: str = "the picture") -> np.ndarray:
    """Convert a Pillow image to H x W x 3 uint8 RGB as `read_image` does; `name` stands in its errors."""
    if image.width * image.height > MAX_PIXELS:
        raise too_large(name, image.size)
    kind = value_type(image)
    # Grey of over 8 bits comes as a TIFF holds it; other values come on the scale of 0 to 255, black 0.
    bits, inverted = tiff_values(image) if image.mode in _WIDE else (16, False)
    image = _upright(image)
    if kind:
        values = np.asarray(image)
        # Pillow has no modes of these.
        raise no_scale(name, kind, values.view(kind) if kind in {"int8", "uint32"} else values)
    if image.mode in _WIDE or image.mode == "I":
        grey = eight_bits(np.asarray(image), bits, inverted=inverted)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA")  # a palette's transparency is data about it, not a colour
    if image.mode in _MULTIPLIED:
        image = image.convert(_MULTIPLIED[image.mode])
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def value_type(image: Image.Image) -> str:
    """Name the type of values that are not on a scale of 8 or 16 bits from 0 up: `float32`, `int16`; else ""."""
    if isinstance(image, TiffImageFile):
        return tiff_value_type(image.tag_v2)
    # Pillow has no other mode for the 16 bits of a PGM (and once had none for a PNG's), which it gives on the whole scale.
    return {"F": "float32", "I": "" if image.format in {"PNG", "PPM"} else "int32"}.get(image.mode, "")


def no_scale(name: str, kind: str, values: np.ndarray) -> DataError:
    """Make the error for values of which nothing tells black and white."""
    finite = values[np.isfinite(values)]
    return no_range(name, kind, (finite.min(), finite.max()) if finite.size else None)


def no_range(name: str, kind: str, limits: tuple[float, float] | None) -> DataError:
    """As `no_scale`, by the least and the largest of the values; None where none is finite."""
    found = f"values from {limits[0]:.7g} to {limits[1]:.7g}" if limits else "values, none of them finite"
    return DataError(f"{name}: {kind} {found}, expected 8 or 16 bits", fix=SCALE, kind="format")


def tiff_values(image: Image.Image) -> tuple[int, bool]:
    """Tell how many bits the values of a TIFF have, and whether 0 is white; (16, False) for other pictures."""
    if not isinstance(image, TiffImageFile):
        return 16, False
    return image.tag_v2.get(BITSPERSAMPLE, (1,))[0], image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO


def eight_bits(values: np.ndarray, bits: int, *, inverted: bool = False) -> np.ndarray:
    """Scale values of so many bits to uint8, rounded: the full range to the full range (257 * 255 = 65535). `inverted`: 0 is white."""
    top = 2**bits - 1
    scaled = values if bits == 8 else ((values.astype(np.uint32) * 510 + top) // (2 * top)).clip(max=255).astype(np.uint8)
    return 255 - scaled if inverted else scaled


def read_ids(path: Path) -> np.ndarray:
    """Read label ids as the file holds them: palette indices, or grey values of 8, 16 or 32 bits; never luminance.

    Returns:
        H x W, uint8 where the file has 8 bits, else int32.

    Raises:
        DataError: A colour picture, besides those of `read_image`.
    """
    with safe_image_open(path) as image:
        image = _upright(image)
        if image.mode in _WIDE or image.mode == "I":
            return np.asarray(image).astype(np.int32)
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8)
        if image.mode == "La" and image.getextrema()[1] == (255, 255):
            image = image.convert("LA")
        if image.mode in {"LA", "PA"}:
            image = image.getchannel(0)
        if image.mode not in {"P", "L"}:
            raise DataError(
                f"{path}: a mask in colour (mode {image.mode}), expected ids (palette or grey)",
                fix="declare `decode: rgb` with a colour table",
                kind="mask-kind",
                pixels=image.width * image.height,
            )
        return np.array(image)


def png_header(content: bytes, name: str) -> tuple[str, tuple[int, int]]:
    """Read Pillow's mode, and height and width as stored, of a PNG in memory, undecoded; `name` stands in errors.

    Raises:
        DataError: It is no PNG, or damaged by its own checksums: what Pillow overlooks another reader may not.
    """
    with safe_image_open(Path(name), content) as image:
        if image.format != "PNG":
            raise DataError(f"{name}: a picture of kind {image.format}, expected PNG")
        kind = b""
        for kind, place, length in png_chunks(io.BytesIO(content)):
            end = place + length
            if zlib.crc32(content[place:end], zlib.crc32(kind)) != int.from_bytes(content[end : end + 4]):
                raise OSError(f"wrong checksum of {kind!r}")
        if kind != b"IEND":
            raise OSError("no end")
        return image.mode, (image.height, image.width)


def png_ids(content: bytes, name: str) -> np.ndarray:
    """Decode H x W values (palette indices, grey) of a PNG in memory, as stored; look at `png_header` first.

    DataError as for `read_image`.
    """
    with safe_image_open(Path(name), content) as image:
        return np.array(image)


def read_colours(path: Path) -> np.ndarray:
    """Read the H x W x 3 uint8 colours of a mask that is declared `rgb`; a palette picture by its colours, alpha dropped."""
    with safe_image_open(path) as image:
        image = _upright(image)
        if image.mode not in {"RGB", "RGBA", "P"}:
            raise DataError(
                f"{path}: mode {image.mode}, expected a mask in colour",
                fix="declare `decode: index` for ids",
                kind="mask-kind",
                pixels=image.width * image.height,
            )
        return np.array(image.convert("RGBA" if image.mode == "P" else "RGB").convert("RGB"))


def write_mask(path: Path, mask: np.ndarray, labels: LabelSet) -> None:
    """Write ids as PNG: with the classes' colours as palette, or 16-bit grey where the set has more than 256 classes."""
    if labels.num_classes > 256:
        image = Image.fromarray(mask.astype(np.uint16))
    else:
        image = Image.fromarray(mask.astype(np.uint8))
        image.putpalette(labels.palette().tobytes())
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")


def _upright(image: Image.Image) -> Image.Image:
    """Decode an image and turn it by its tag; the very image where there is nothing to turn."""
    image.load()  # a PNG may have its tag behind its pixels
    turn = _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)
