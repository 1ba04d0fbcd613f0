"""The one decoder: pictures and masks as arrays, checked before they are decoded."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from seenet.core.errors import DataError
from seenet.core.files import replacing
from seenet.core.labels import LabelSet

MAX_PIXELS = 179_000_000
"""Larger pictures are refused by their header, before anything is decoded."""

IMAGE_SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pcx", ".pgm", ".png"}
    | {".pnm", ".ppm", ".psd", ".sgi", ".tga", ".tif", ".tiff", ".webp"}
)
"""What counts as a picture when a folder is listed."""

_WIDE = {"I;16", "I;16B", "I;16L", "I;16N"}

# What Pillow's readers raise over files that are damaged; EOFError and the rest come from single formats.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError, ArithmeticError, struct.error, zlib.error)


@contextmanager
def _opened(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """An undecoded image; everything that Pillow raises on the way becomes a DataError with the file's name.

    With `content` that is decoded, and `path` only names it.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns from half its own limit on, where the limit here is ours, and of damaged tags that nothing here needs.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", module=r"PIL\.")
            # By stream: of a path Pillow may map the file, and then reads turned TIFFs in the wrong order.
            with path.open("rb") if content is None else io.BytesIO(content) as stream, Image.open(stream) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(f"{path}: {image.width} x {image.height} pixels, expected at most {MAX_PIXELS}; cut it into tiles")
                if image.format != "MPO" and getattr(image, "is_animated", False):
                    raise DataError(f"{path}: animated ({getattr(image, 'n_frames', 2)} frames), expected one picture; save one frame")
                yield image
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder, expected a picture") from None
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0 if content is None else not content
        what = "an empty file" if empty else "not a picture"
        raise DataError(f"{path}: {what}, expected one that Pillow reads (JPEG, PNG, TIFF, WebP, ...)") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: more pixels than {MAX_PIXELS}; cut it into tiles") from None
    except _BROKEN as error:
        raise DataError(f"{path}: cannot be decoded ({' '.join(str(error).split())[:120]}); it may be truncated, copy it again") from None


def image_size(path: Path) -> tuple[int, int]:
    """Height and width after EXIF rotation, from the header alone. DataError as for `read_image`."""
    with _opened(path) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):
            # Pillow turns this format's size already when it opens the file; the tags are as stored.
            width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)


def read_image(path: Path) -> np.ndarray:
    """H x W x 3 uint8 RGB of any picture that Pillow reads.

    Rotated by EXIF; 16-bit divided by 257; grey, palette and CMYK converted; alpha dropped. DataError: missing, empty, unreadable,
    truncated, animated, or over the pixel limit.
    """
    with _opened(path) as image:
        return from_pil(image, str(path))


def from_pil(image: Image.Image, name: str = "the picture") -> np.ndarray:
    """H x W x 3 uint8 RGB of a Pillow image, converted as `read_image` does; `name` stands in its errors."""
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{name}: {image.width} x {image.height} pixels, expected at most {MAX_PIXELS}; cut it into tiles")
    image = _upright(image)
    if image.mode in _WIDE or image.mode == "I":
        wide = np.asarray(image).astype(np.int64)
        # 257 * 255 = 65535: the full range maps to the full range.
        grey = np.clip((wide + 128) // 257, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        grey = np.clip(np.nan_to_num(np.asarray(image)), 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA")  # a palette's transparency is data about it, not a colour
    return np.array(image.convert("RGB"))


def read_ids(path: Path) -> np.ndarray:
    """H x W label ids as the file holds them: palette indices, or grey values of 8, 16 or 32 bits; never luminance.

    uint8 where the file has 8 bits, else int32. DataError for a colour picture, besides those of `read_image`.
    """
    with _opened(path) as image:
        image = _upright(image)
        if image.mode in _WIDE or image.mode == "I":
            return np.asarray(image).astype(np.int32)
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8)
        if image.mode in {"LA", "PA"}:
            image = image.getchannel(0)
        if image.mode not in {"P", "L"}:
            raise DataError(
                f"{path}: a mask in colour (mode {image.mode}), expected ids (palette or grey); declare `decode: rgb` with a colour table"
            )
        return np.array(image)


def png_header(content: bytes, name: str) -> tuple[str, tuple[int, int]]:
    """Pillow's mode, and height and width as stored, of a PNG in memory, undecoded. `name` stands in errors.

    DataError where it is none, or damaged by its own checksums: what Pillow overlooks another reader may not.
    """
    with _opened(Path(name), content) as image:
        if image.format != "PNG":
            raise DataError(f"{name}: a picture of kind {image.format}, expected PNG")
        header = image.mode, (image.height, image.width)
        image.verify()
        return header


def png_ids(content: bytes, name: str) -> np.ndarray:
    """H x W values (palette indices, grey) of a PNG in memory, as stored; look at `png_header` first. DataError as for `read_image`."""
    with _opened(Path(name), content) as image:
        return np.array(image)


def read_colours(path: Path) -> np.ndarray:
    """H x W x 3 uint8 colours of a mask that is declared `rgb`; a palette picture by its colours, alpha dropped."""
    with _opened(path) as image:
        image = _upright(image)
        if image.mode not in {"RGB", "RGBA", "P"}:
            raise DataError(f"{path}: mode {image.mode}, expected a mask in colour; declare `decode: index` for ids")
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
    return ImageOps.exif_transpose(image)
