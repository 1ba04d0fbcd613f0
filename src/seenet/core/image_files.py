"""Open image files that may be damaged or hostile.

`safe_image_open` yields one undecoded image: its header is checked before anything is decoded, its
metadata is reduced to the orientation, and every error of Pillow becomes a DataError of one line.
"""

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    EXTRASAMPLES,
    IMAGELENGTH,
    IMAGEWIDTH,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    TILELENGTH,
    TILEWIDTH,
    ImageFileDirectory_v2,
    TiffImageFile,
)

from seenet.core.errors import DataError
from seenet.core.metadata import ORIENTATION, filter_png, stored_orientation

MAX_PIXELS = 179_000_000
"""Pixel limit, checked in the header before anything is decoded."""

SCALE = (
    "scale them so that 0 is black and 255 white, and save them as 8 bits, or set `value_range` in "
    "seenet.yaml, and `channels` for several bands"
)
"""How to fix values of another range."""

MAX_TILE_PIXELS = 4 * 2**20
"""Limit of a TIFF's tile, which is decoded whole and may be larger than the image.

A tile of up to four times the image's pixels is accepted too.
"""
MAX_DIRECTORIES = 1000
"""Limit of the TIFF directories searched: one per page, reduced copy and mask."""

# Photographs and masks. Pillow's other readers may start programs (EPS: Ghostscript) or leave
# decoding to plugins. Some Pillows lack some of these. TGA is last, since it has no magic bytes.
Image.init()
FORMATS = tuple(
    name
    for name in (
        "JPEG", "PNG", "TIFF", "WEBP", "AVIF", "GIF", "BMP", "JPEG2000", "PCX", "PPM", "PSD",
        "SGI", "TGA",
    )
    if name in Image.OPEN
)  # fmt: skip

BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError,
    ArithmeticError, AttributeError, AssertionError, struct.error, zlib.error,
)  # fmt: skip
"""Exceptions of Pillow's readers for damaged files."""

_SUBFILE_TYPE = 254
_REDUCED_OR_MASK = 1 | 4
"""Bits of a TIFF's `NewSubfileType`: a reduced copy, or a mask, of another page."""
# Where no logging is configured, Pillow's warnings about odd tags would go to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def safe_image_open(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """Yield an undecoded image whose only metadata is its orientation, as EXIF.

    Args:
        path: the file; with `content` it is only its name in errors.
        content: an image file in memory.

    Raises:
        DataError: for every error of Pillow, inside the block too. Kinds: missing, empty, format,
            large, animated, damaged.
    """
    try:
        # A stream, since Pillow may map a file given by path, and then reads rotated TIFFs wrongly.
        with (
            path.open("rb") if content is None else io.BytesIO(content) as stream,
            Image.open(filter_png(stream), formats=FORMATS) as image,
        ):
            if isinstance(image, TiffImageFile):
                _choose_page(path, image)
                _check_tiff(path, image)
            if image.width * image.height > MAX_PIXELS:
                raise too_large(str(path), image.size)
            # Not `n_frames`: it takes minutes for a hostile file.
            if image.format not in {"MPO", "TIFF"} and getattr(image, "is_animated", False):
                raise _several_pages(path)
            _reduce_metadata(image)
            yield image
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected a picture", kind="missing") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder, expected a picture", kind="missing") from None
    except UnidentifiedImageError:
        raise _unidentified(path, content) from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{path}: more pixels than {MAX_PIXELS}", fix="cut it into tiles", kind="large"
        ) from None
    except MemoryError:
        raise DataError(
            f"{path}: needs more memory than is available", fix="cut it into tiles", kind="large"
        ) from None
    except BROKEN as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(
            f"{path}: cannot be decoded ({reason}); it may be truncated",
            fix="copy it again",
            kind="damaged",
        ) from None


def too_large(name: str, size: tuple[int, int]) -> DataError:
    """Return the error for an image of this width and height, over the pixel limit."""
    found = f"{size[0]} x {size[1]} pixels, expected at most {MAX_PIXELS}"
    return DataError(f"{name}: {found}", fix="cut it into tiles", kind="large")


def check_tile(name: str, pixels: int, size: tuple[int, int]) -> None:
    """Raise DataError for tiles of so many pixels in a picture of this width and height."""
    if pixels > max(MAX_TILE_PIXELS, 4 * size[0] * size[1]):
        raise DataError(
            f"{name}: tiles of {pixels} pixels in a picture of {size[0]} x {size[1]}",
            fix="save it again with smaller tiles",
            kind="large",
        )


def tiff_value_type(tags: ImageFileDirectory_v2) -> str:
    """Return the type of a TIFF's values, as `float32`; "" for unsigned 8 or 16 bits."""
    kind = {2: "int", 3: "float"}.get(max(tags.get(SAMPLEFORMAT, (1,))), "uint")
    bits = tags.get(BITSPERSAMPLE, (1,))[0]
    return "" if kind == "uint" and bits <= 16 else f"{kind}{bits}"


def _reduce_metadata(image: Image.Image) -> None:
    """Keep only the orientation: Pillow would fail on damaged metadata when it decodes."""
    exif = Image.Exif()
    exif[ORIENTATION] = stored_orientation(image)
    for name in ("xmp", "XML:com.adobe.xmp", "Raw profile type exif"):
        image.info.pop(name, None)
    # With an EXIF block present, Pillow neither decodes a PNG to find one nor reads a TIFF's tags.
    image.info["exif"] = exif.tobytes()
    image.getexif().load(image.info["exif"])


def _choose_page(path: Path, image: TiffImageFile) -> None:
    """Seek the only page of a TIFF.

    Reduced copies and masks are not pages, unless there is nothing else.

    Raises:
        DataError: there are several pages.
    """
    pages: list[int] = []
    for number in range(MAX_DIRECTORIES if image.is_animated else 0):
        # A directory of an unsupported kind raises, but its tags are read.
        with suppress(*BROKEN):
            image.seek(number)
        if image.tell() != number:
            break
        tags = image.tag_v2
        has_size = IMAGEWIDTH in tags and IMAGELENGTH in tags
        if has_size and not tags.get(_SUBFILE_TYPE, 0) & _REDUCED_OR_MASK:
            pages.append(number)
        if len(pages) > 1:
            raise _several_pages(path)
    image.seek(pages[0] if pages else 0)


def _several_pages(path: Path) -> DataError:
    return DataError(
        f"{path}: animated or of several pages, expected one picture",
        fix="save one frame",
        kind="animated",
    )


def _check_tiff(path: Path, image: TiffImageFile) -> None:
    """Raise DataError for tiles that are too large and for layouts that Pillow reads wrongly."""
    tags = image.tag_v2
    check_tile(str(path), tags.get(TILEWIDTH, 0) * tags.get(TILELENGTH, 0), image.size)
    # Of bands in separate planes Pillow misreads those of 16 bits and those with alpha.
    misread = image.mode == "La" or (
        not image.use_load_libtiff
        and (
            tags.get(BITSPERSAMPLE, (1,))[0] == 16
            or image.mode == "LA"
            or tags.get(EXTRASAMPLES, ())[:1] == (1,)
        )
    )
    if misread and tags.get(PLANAR_CONFIGURATION, 1) == 2 and tags.get(SAMPLESPERPIXEL, 1) > 1:
        raise DataError(
            f"{path}: bands of 16 bits or with alpha in separate planes, which are not supported",
            fix="save it with interleaved bands",
            kind="format",
        )


def _unidentified(path: Path, content: bytes | None) -> DataError:
    """Return the error for a file that no reader accepts: empty, truncated or of another format."""
    with path.open("rb") if content is None else io.BytesIO(content) as stream:
        head = stream.read(16)
        if not head:
            return DataError(
                f"{path}: an empty file, expected a picture", fix="copy it again", kind="empty"
            )
        if head.startswith(b"version https://"):
            return DataError(
                f"{path}: a pointer of Git LFS, expected the picture itself",
                fix="run `git lfs pull` in its repository",
                kind="format",
            )
        accepts = {name: Image.OPEN[name][1] for name in FORMATS}
        formats = [
            name for name, accept in accepts.items() if accept and accept(head.ljust(16, b"\0"))
        ]
        if "TIFF" in formats:
            with suppress(*BROKEN):
                # 43 marks a BigTIFF, whose header is longer.
                tags = ImageFileDirectory_v2(head if head[2] == 43 else head[:8])
                stream.seek(tags.next)
                tags.load(stream)
                if values := tiff_value_type(tags):
                    return DataError(
                        f"{path}: {values} values, expected 8 or 16 bits", fix=SCALE, kind="format"
                    )
            what = "a TIFF that is truncated, or of bands, bits or a compression that are not read"
            return DataError(
                f"{path}: {what}",
                fix="copy it again, save it as 8-bit RGB, or name its bands: `channels: [1, 2, 3]` "
                "in seenet.yaml",
                kind="damaged",
            )
        if "AVIF" in formats:
            # libavif does not tell why it refuses a size over its own limit.
            for box in (head + stream.read(2**16)).split(b"ispe")[1:]:
                width, height = struct.unpack(">II", box[4:12].ljust(8, b"\0"))
                if width * height > MAX_PIXELS:
                    return too_large(str(path), (width, height))
    if formats:
        return DataError(
            f"{path}: starts like a picture but cannot be read; it may be truncated",
            fix="copy it again",
            kind="damaged",
        )
    return DataError(
        f"{path}: not a picture, expected JPEG, PNG, TIFF or another of {len(FORMATS)} formats",
        fix="copy it again, or convert it to PNG",
        kind="format",
    )
