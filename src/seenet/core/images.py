"""The one decoder: pictures and masks as arrays, checked before they are decoded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, IMAGELENGTH, IMAGEWIDTH, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from seenet.core.errors import DataError
from seenet.core.files import replacing
from seenet.core.labels import LabelSet
from seenet.core.opening import MAX_PIXELS as MAX_PIXELS
from seenet.core.opening import opened, too_large

IMAGE_SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pcx", ".pgm", ".png"}
    | {".pnm", ".ppm", ".psd", ".sgi", ".tga", ".tif", ".tiff", ".webp"}
)
"""What counts as a picture when a folder is listed."""

_WIDE = {"I;16", "I;16B", "I;16L", "I;16N"}
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
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
    """Of any picture, without decoding it. DataError as for `read_image`, as far as the header tells."""
    with opened(path) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):
            # Pillow turns this format's size already when it opens the file; the tags are as stored.
            width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
        orientation = _orientation(image)
        size = (width, height) if orientation in _SIDEWAYS else (height, width)
        return Header(size, image.mode, _notes(image, orientation))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width after EXIF rotation, from the header alone. DataError as for `read_image`."""
    return read_header(path).size


def _orientation(image: Image.Image) -> int:
    """The tag that `read_image` will follow, 1 where there is none."""
    # Pillow decodes a PNG to look for tags behind its pixels; one without any there need not be.
    if isinstance(image, PngImageFile):
        if _has_late_tags(image):
            image.load()
        elif not image.info.keys() & {"exif", "Raw profile type exif", "XML:com.adobe.xmp"}:
            return 1
    orientation = image.getexif().get(_ORIENTATION, 1)
    return int(orientation) if orientation in range(2, 9) else 1


def _has_late_tags(image: PngImageFile) -> bool:
    """Whether chunks that may say how a PNG is turned stand behind its pixels."""
    stream = image.fp
    assert stream is not None
    place = stream.tell()
    stream.seek(8)
    pixels = late = False
    while len(head := stream.read(8)) == 8 and not late:
        pixels |= head[4:] == b"IDAT"
        late = pixels and head[4:] in {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}
        stream.seek(int.from_bytes(head[:4], "big") + 4, 1)
    stream.seek(place)
    return late


def _notes(image: Image.Image, orientation: int) -> tuple[str, ...]:
    # Colours of 16 bits have no mode of their own: the readers take their high bytes.
    deep = any(part in str(tile) for tile in getattr(image, "tile", ()) for part in ("'RGB;16", "'RGBA;16", "'RGBX;16", "'LA;16"))
    found = {
        "16-bit": image.mode in _WIDE or deep,
        "32-bit": image.mode in {"I", "F"},
        "grey": image.mode in {*_WIDE, "1", "L", "LA", "I", "F"},
        "palette": image.mode in {"P", "PA"},
        "alpha": image.mode in {"LA", "PA", "RGBA", "La", "RGBa"} or "transparency" in image.info,
        image.mode: image.mode in {"CMYK", "YCbCr", "LAB", "HSV"},
        f"EXIF orientation {orientation}": orientation != 1,
    }
    return tuple(note for note, holds in found.items() if holds)


def read_image(path: Path) -> np.ndarray:
    """H x W x 3 uint8 RGB of any picture: JPEG, PNG, TIFF, WebP and what else `opening.FORMATS` lists.

    Rotated by EXIF; grey of 12 or 16 bits on the scale of 0 to 255, of 16-bit colours the high byte; grey, palette and CMYK converted;
    alpha dropped.
    DataError: missing, empty, unreadable, truncated, animated, or over the pixel limit.
    """
    with opened(path) as image:
        return from_pil(image, str(path))


def from_pil(image: Image.Image, name: str = "the picture") -> np.ndarray:
    """H x W x 3 uint8 RGB of a Pillow image, converted as `read_image` does; `name` stands in its errors."""
    if image.width * image.height > MAX_PIXELS:
        raise too_large(name, image)
    # Grey of over 8 bits comes as a TIFF holds it; other values come on the scale of 0 to 255, black 0.
    bits, inverted = tiff_values(image) if image.mode in _WIDE else (16, False)
    image = _upright(image)
    if image.mode in _WIDE or image.mode == "I":
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        grey = eight_bits(wide, bits, inverted=inverted)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        grey = np.clip(np.nan_to_num(np.asarray(image)), 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA")  # a palette's transparency is data about it, not a colour
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def tiff_values(image: Image.Image) -> tuple[int, bool]:
    """How many bits the values of a TIFF have, and whether 0 is white; (16, False) of other pictures."""
    if not isinstance(image, TiffImageFile):
        return 16, False
    return image.tag_v2.get(BITSPERSAMPLE, (1,))[0], image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO


def eight_bits(values: np.ndarray, bits: int, *, inverted: bool = False) -> np.ndarray:
    """Values of so many bits as uint8, rounded: the full range maps to the full range (257 * 255 = 65535). `inverted`: 0 is white."""
    top = 2**bits - 1
    scaled = values if bits == 8 else ((values.astype(np.uint32) * 510 + top) // (2 * top)).clip(max=255).astype(np.uint8)
    return 255 - scaled if inverted else scaled


def read_ids(path: Path) -> np.ndarray:
    """H x W label ids as the file holds them: palette indices, or grey values of 8, 16 or 32 bits; never luminance.

    uint8 where the file has 8 bits, else int32. DataError for a colour picture, besides those of `read_image`.
    """
    with opened(path) as image:
        image = _upright(image)
        if image.mode in _WIDE or image.mode == "I":
            return np.asarray(image).astype(np.int32)
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8)
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
    """Pillow's mode, and height and width as stored, of a PNG in memory, undecoded. `name` stands in errors.

    DataError where it is none, or damaged by its own checksums: what Pillow overlooks another reader may not.
    """
    with opened(Path(name), content) as image:
        if image.format != "PNG":
            raise DataError(f"{name}: a picture of kind {image.format}, expected PNG")
        header = image.mode, (image.height, image.width)
        image.verify()
        return header


def png_ids(content: bytes, name: str) -> np.ndarray:
    """H x W values (palette indices, grey) of a PNG in memory, as stored; look at `png_header` first. DataError as for `read_image`."""
    with opened(Path(name), content) as image:
        return np.array(image)


def read_colours(path: Path) -> np.ndarray:
    """H x W x 3 uint8 colours of a mask that is declared `rgb`; a palette picture by its colours, alpha dropped."""
    with opened(path) as image:
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
    """PNG of the ids: with the classes' colours as palette, or 16-bit grey where the set has more than 256 classes."""
    if labels.num_classes > 256:
        image = Image.fromarray(mask.astype(np.uint16))
    else:
        image = Image.fromarray(mask.astype(np.uint8))
        image.putpalette(labels.palette().tobytes())
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")


def _upright(image: Image.Image) -> Image.Image:
    """Decoded and turned by its tag; the very image where there is nothing to turn."""
    image.load()  # a PNG may have its tag behind its pixels
    return ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) in range(2, 9) else image
