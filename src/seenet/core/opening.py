"""Picture files opened without trust: the header decides, and whatever a reader stumbles over is one line with the file's name."""

import io
import logging
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, EXTRASAMPLES, PLANAR_CONFIGURATION, SAMPLESPERPIXEL, TILELENGTH, TILEWIDTH, TiffImageFile

from seenet.core import tiff
from seenet.core.errors import DataError
from seenet.core.metadata import Bare, bare, exif_block, orientation_of

MAX_PIXELS = 179_000_000
"""Larger pictures are refused by their header, before anything is decoded."""

SCALE = "scale them so that 0 is black and 255 white, and save them as 8 bits"
"""What to do with values of another range."""

MAX_TILE_PIXELS = 4 * 2**20
"""Of a TIFF: its tiles may be larger than the picture, and are decoded whole. Larger ones may be four times the picture."""

# Photographs and masks; of Pillow's other readers some start programs (EPS: Ghostscript) or leave decoding to plugins. Not all of
# these are in every Pillow. TGA, which has no mark of its own, comes last.
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

# Pillow's log lines about odd tags would reach stderr by logging's last resort where nobody has set logging up.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class _Reading:
    """While any thread reads: no warnings of Pillow's.

    They are the whole process's, so the first thread in changes them and the last one out restores them.
    """

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                # Pillow warns from half its own limit on, where the limit here is ours, and of damaged tags that nothing here needs.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.filters.__exit__(None, None, None)


_reading = _Reading()
# A process that is forked while another thread reads would wait for that thread's lock for ever.
os.register_at_fork(after_in_child=_reading.__init__)  # type: ignore[misc]


@contextmanager
def opened(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """An undecoded image; everything that Pillow raises on the way becomes a DataError with the file's name.

    Of its metadata it has the orientation alone, as EXIF. With `content` that is decoded, and `path` only names it.
    Kinds of the error: missing, empty, format, large, animated, damaged.
    """
    try:
        # By stream: of a path Pillow may map the file, and then reads turned TIFFs in the wrong order.
        with _reading, path.open("rb") if content is None else io.BytesIO(content) as stream:
            found = bare(stream)
            if found.size is not None:
                _refuse_large(path, found.size)
            with Image.open(found.stream, formats=FORMATS) as image:
                _refuse_large(path, image.size)
                if isinstance(image, TiffImageFile):
                    _check_tiff(path, image)
                # How many frames is not asked: of a hostile file that takes minutes.
                if found.several or (image.format != "MPO" and getattr(image, "is_animated", False)):
                    raise DataError(f"{path}: animated or of several pages, expected one picture", fix="save one frame", kind="animated")
                _only_orientation(image, found)
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


def _only_orientation(image: Image.Image, found: Bare) -> None:
    """Leave of what an image says of itself how it is turned: what is damaged would stop Pillow when pixels are asked for."""
    orientation = found.orientation
    if orientation is None:
        exif = image.info.get("exif")
        # An AVIF is turned by boxes of its own, which Pillow gives as EXIF, and by nothing else.
        xmp = image.info.get("xmp") if image.format != "AVIF" else None
        orientation = orientation_of([exif] if isinstance(exif, bytes) else [], xmp if isinstance(xmp, bytes) else b"")
    for name in ("xmp", "XML:com.adobe.xmp", "Raw profile type exif"):
        image.info.pop(name, None)
    # With a block at hand, Pillow decodes no PNG to look for one, and reads none of a TIFF's tags.
    image.info["exif"] = exif_block(orientation)
    image.getexif().load(image.info["exif"])


def _unidentified(path: Path, whole: bytes | None) -> DataError:
    """What is said of a file that no reader takes: empty, another kind of file, or one that begins right and ends too early."""
    content = whole
    if content is None:
        with path.open("rb") as stream:
            content = stream.read(32)
    if not content:
        return DataError(f"{path}: an empty file, expected a picture", fix="copy it again", kind="empty")
    accepts = [Image.OPEN[name][1] for name in FORMATS]
    if content[:4] in tiff.MAGICS:
        with path.open("rb") if whole is None else io.BytesIO(whole) as stream:
            directory, _ = tiff.picture(stream)
            values = directory.values(stream) if directory is not None else ""
        if values:
            return DataError(f"{path}: {values} values, expected 8 or 16 bits", fix=SCALE, kind="format")
        what = "a TIFF that is truncated, or of bands, bits or a compression that are not read"
        return DataError(f"{path}: {what}", fix="copy it again, or save it as 8-bit RGB", kind="damaged")
    if any(accept is not None and accept(content[:16].ljust(16, b"\0")) for accept in accepts):
        return DataError(f"{path}: begins as a picture but cannot be read on; it may be truncated", fix="copy it again", kind="damaged")
    expected = f"expected JPEG, PNG, TIFF, WebP or another of {len(FORMATS)} formats"
    return DataError(f"{path}: not a picture, {expected}", fix="copy it again, or convert it to PNG", kind="format")


def _refuse_large(path: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise too_large(str(path), size)


def too_large(name: str, size: tuple[int, int]) -> DataError:
    """What is said of a picture of this width and height, over the pixel limit."""
    found = f"{size[0]} x {size[1]} pixels, expected at most {MAX_PIXELS}"
    return DataError(f"{name}: {found}", fix="cut it into tiles", kind="large")
