"""Open picture files that may be damaged or hostile.

`safe_image_open` yields one undecoded picture. Its header is checked before anything is decoded, of its metadata only the
orientation is left, and whatever Pillow raises becomes one line with the file's name.
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
from seenet.core.metadata import ORIENTATION, essential, stored_orientation

MAX_PIXELS = 179_000_000
"""Larger pictures are refused by their header, before anything is decoded."""

SCALE = "scale them so that 0 is black and 255 white, and save them as 8 bits"
"""What to do with values of another range."""

MAX_TILE_PIXELS = 4 * 2**20
"""Of a TIFF: its tiles may be larger than the picture, and are decoded whole. Larger ones may be four times the picture."""
MAX_DIRECTORIES = 1000
"""Of a TIFF, looked at. A picture has one for each smaller copy and for each copy's mask."""

# Photographs and masks; of Pillow's other readers some start programs (EPS: Ghostscript) or leave decoding to plugins. Not
# all of these are in every Pillow. TGA, which has no mark of its own, comes last.
Image.init()
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "GIF", "BMP", "JPEG2000", "PCX", "PPM", "PSD", "SGI", "TGA")
    if name in Image.OPEN
)

# What Pillow's readers raise over files that are damaged; EOFError and the rest come from single formats.
BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError, ArithmeticError, AttributeError, AssertionError,
    struct.error, zlib.error,
)  # fmt: skip

_SUBFILE, _NO_PAGE = 254, 1 | 4
"""A TIFF's tag, and its bits for a smaller copy of another page and for another page's mask."""
# Pillow's log lines about odd tags would reach stderr by logging's last resort where nobody has set logging up.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def safe_image_open(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """Yield an undecoded image, of whose metadata the orientation alone is left, as EXIF.

    Args:
        path: The file; with `content` it only names that in errors.
        content: A picture file in memory.

    Raises:
        DataError: For whatever Pillow raises, inside the block too. Kinds: missing, empty, format, large, animated, damaged.
    """
    try:
        # By stream: of a path Pillow may map the file, and then reads turned TIFFs in the wrong order.
        with (
            path.open("rb") if content is None else io.BytesIO(content) as stream,
            Image.open(essential(stream), formats=FORMATS) as image,
        ):
            if isinstance(image, TiffImageFile):
                _choose_page(path, image)
                _check_tiff(path, image)
            if image.width * image.height > MAX_PIXELS:
                raise too_large(str(path), image.size)
            # How many frames is not asked: of a hostile file that takes minutes.
            if image.format not in {"MPO", "TIFF"} and getattr(image, "is_animated", False):
                raise _several(path)
            _keep_orientation(image)
            yield image
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected a picture", kind="missing") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder, expected a picture", kind="missing") from None
    except UnidentifiedImageError:
        raise _unidentified(path, content) from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: more pixels than {MAX_PIXELS}", fix="cut it into tiles", kind="large") from None
    except MemoryError:
        raise DataError(f"{path}: takes more memory than there is", fix="cut it into tiles", kind="large") from None
    except BROKEN as error:
        what = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{path}: cannot be decoded ({what}); it may be truncated", fix="copy it again", kind="damaged") from None


def too_large(name: str, size: tuple[int, int]) -> DataError:
    """Make the error for a picture of this width and height, over the pixel limit."""
    found = f"{size[0]} x {size[1]} pixels, expected at most {MAX_PIXELS}"
    return DataError(f"{name}: {found}", fix="cut it into tiles", kind="large")


def tiff_value_type(tags: ImageFileDirectory_v2) -> str:
    """Name the type of a TIFF's values where they are not of 8 or 16 bits from 0 up: `float32`, `int16`; else ""."""
    form = {2: "int", 3: "float"}.get(max(tags.get(SAMPLEFORMAT, (1,))), "uint")
    bits = tags.get(BITSPERSAMPLE, (1,))[0]
    return "" if form == "uint" and bits <= 16 else f"{form}{bits}"


def _keep_orientation(image: Image.Image) -> None:
    """Leave of what an image says of itself how it is turned: what is damaged would stop Pillow when pixels are asked for."""
    exif = Image.Exif()
    exif[ORIENTATION] = stored_orientation(image)
    for name in ("xmp", "XML:com.adobe.xmp", "Raw profile type exif"):
        image.info.pop(name, None)
    # With a block at hand, Pillow decodes no PNG to look for one, and reads none of a TIFF's tags.
    image.info["exif"] = exif.tobytes()
    image.getexif().load(image.info["exif"])


def _choose_page(path: Path, image: TiffImageFile) -> None:
    """Turn a TIFF to its one page; smaller copies and masks are no pages, unless nothing else is there."""
    pages: list[int] = []
    for number in range(MAX_DIRECTORIES if image.is_animated else 0):
        # Of a kind that is not read it has its tags all the same.
        with suppress(*BROKEN):
            image.seek(number)
        if image.tell() != number:
            break
        tags = image.tag_v2
        if IMAGEWIDTH in tags and IMAGELENGTH in tags and not tags.get(_SUBFILE, 0) & _NO_PAGE:
            pages.append(number)
        if len(pages) > 1:
            raise _several(path)
    image.seek(pages[0] if pages else 0)


def _several(path: Path) -> DataError:
    return DataError(f"{path}: animated or of several pages, expected one picture", fix="save one frame", kind="animated")


def _check_tiff(path: Path, image: TiffImageFile) -> None:
    tags = image.tag_v2
    tile = tags.get(TILEWIDTH, 0) * tags.get(TILELENGTH, 0)
    if tile > max(MAX_TILE_PIXELS, 4 * image.width * image.height):
        what = f"tiles of {tile} pixels in a picture of {image.width} x {image.height}"
        raise DataError(f"{path}: {what}", fix="save it again with smaller tiles", kind="large")
    # Pillow takes these for bands of 8 bits, or for one band after the other, or stops.
    mistaken = tags.get(BITSPERSAMPLE, (1,))[0] == 16 or image.mode == "LA" or tags.get(EXTRASAMPLES, ())[:1] == (1,)
    mistaken = image.mode == "La" or (mistaken and not image.use_load_libtiff)
    if mistaken and tags.get(PLANAR_CONFIGURATION, 1) == 2 and tags.get(SAMPLESPERPIXEL, 1) > 1:
        what = "16-bit bands, or colours and alpha, that are stored one behind the other"
        raise DataError(f"{path}: {what}, which is not read", fix="save it with each pixel's bands together", kind="format")


def _unidentified(path: Path, content: bytes | None) -> DataError:
    """Make the error for a file that no reader takes: empty, of another kind, or one that begins right and ends too early."""
    with path.open("rb") if content is None else io.BytesIO(content) as stream:
        head = stream.read(16)
        if not head:
            return DataError(f"{path}: an empty file, expected a picture", fix="copy it again", kind="empty")
        accepts = {name: Image.OPEN[name][1] for name in FORMATS}
        kinds = [name for name, accept in accepts.items() if accept is not None and accept(head.ljust(16, b"\0"))]
        if "TIFF" in kinds:
            with suppress(*BROKEN):
                tags = ImageFileDirectory_v2(head if head[2] == 43 else head[:8])
                stream.seek(tags.next)
                tags.load(stream)
                if values := tiff_value_type(tags):
                    return DataError(f"{path}: {values} values, expected 8 or 16 bits", fix=SCALE, kind="format")
            what = "a TIFF that is truncated, or of bands, bits or a compression that are not read"
            return DataError(f"{path}: {what}", fix="copy it again, or save it as 8-bit RGB", kind="damaged")
        if "AVIF" in kinds:
            # libavif says nothing of a size over its own limit; the header does.
            for box in (head + stream.read(2**16)).split(b"ispe")[1:]:
                width, height = struct.unpack(">II", box[4:12].ljust(8, b"\0"))
                if width * height > MAX_PIXELS:
                    return too_large(str(path), (width, height))
    if kinds:
        return DataError(f"{path}: begins as a picture but cannot be read on; it may be truncated", fix="copy it again", kind="damaged")
    expected = f"expected JPEG, PNG, TIFF, WebP or another of {len(FORMATS)} formats"
    return DataError(f"{path}: not a picture, {expected}", fix="copy it again, or convert it to PNG", kind="format")
