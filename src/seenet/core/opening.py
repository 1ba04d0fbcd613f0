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

from PIL import Image, PngImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

from seenet.core.errors import DataError

MAX_PIXELS = 179_000_000
"""Larger pictures are refused by their header, before anything is decoded."""

MAX_TILE_PIXELS = 4 * 2**20
"""Of a TIFF: its tiles may be larger than the picture, and are decoded whole. Larger ones may be four times the picture."""

MAX_TEXT_BYTES = 32 * 2**20
"""Of all texts of a PNG together, unpacked."""

# Photographs and masks; of Pillow's other readers some start programs (EPS: Ghostscript) or leave decoding to plugins. Not all of
# these are in every Pillow. TGA, which has no mark of its own, comes last.
Image.init()
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "GIF", "BMP", "JPEG2000", "PCX", "PPM", "PSD", "SGI", "TGA")
    if name in Image.OPEN
)

# What Pillow's readers raise over files that are damaged; EOFError and the rest come from single formats.
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError, ArithmeticError, AttributeError, AssertionError,
    struct.error, zlib.error,
)  # fmt: skip

# Pillow's log lines about odd tags would reach stderr by logging's last resort where nobody has set logging up.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class _Reading:
    """While any thread reads: no warnings of Pillow's, and less memory for the texts of a PNG than it would grant.

    Both are the whole process's, so the first thread in changes them and the last one out restores them.
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
                self.text_bytes = PngImagePlugin.MAX_TEXT_MEMORY
                PngImagePlugin.MAX_TEXT_MEMORY = min(self.text_bytes, MAX_TEXT_BYTES)
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                PngImagePlugin.MAX_TEXT_MEMORY = self.text_bytes
                self.filters.__exit__(None, None, None)


_reading = _Reading()
# A process that is forked while another thread reads would wait for that thread's lock for ever.
os.register_at_fork(after_in_child=_reading.__init__)  # type: ignore[misc]


@contextmanager
def opened(path: Path, content: bytes | None = None, *, pages: bool = False) -> Iterator[Image.Image]:
    """An undecoded image; everything that Pillow raises on the way becomes a DataError with the file's name.

    With `content` that is decoded, and `path` only names it. `pages`: several are no error.
    Kinds of the error: missing, empty, format, large, animated, damaged.
    """
    try:
        # By stream: of a path Pillow may map the file, and then reads turned TIFFs in the wrong order.
        with (
            _reading,
            path.open("rb") if content is None else io.BytesIO(content) as stream,
            Image.open(stream, formats=FORMATS) as image,
        ):
            if image.width * image.height > MAX_PIXELS:
                raise too_large(str(path), image)
            if isinstance(image, TiffImageFile):
                tile = image.tag_v2.get(TILEWIDTH, 0) * image.tag_v2.get(TILELENGTH, 0)
                if tile > max(MAX_TILE_PIXELS, 4 * image.width * image.height):
                    found = f"tiles of {tile} pixels in a picture of {image.width} x {image.height}"
                    raise DataError(f"{path}: {found}", fix="save it again with smaller tiles", kind="large")
            # How many frames is not asked: of a hostile file that takes minutes.
            if not pages and image.format != "MPO" and getattr(image, "is_animated", False):
                raise DataError(f"{path}: animated or of several pages, expected one picture", fix="save one frame", kind="animated")
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
    except _BROKEN as error:
        what = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{path}: cannot be decoded ({what}); it may be truncated", fix="copy it again", kind="damaged") from None


def _unidentified(path: Path, content: bytes | None) -> DataError:
    """What is said of a file that no reader takes: empty, another kind of file, or one that begins right and ends too early."""
    if content is None:
        with path.open("rb") as stream:
            content = stream.read(32)
    if not content:
        return DataError(f"{path}: an empty file, expected a picture", fix="copy it again", kind="empty")
    accepts = [Image.OPEN[name][1] for name in FORMATS]
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        what = "a TIFF that is truncated, or of bands, bits or a compression that are not read"
        return DataError(f"{path}: {what}", fix="copy it again, or save it as 8-bit RGB", kind="damaged")
    if any(accept is not None and accept(content[:16].ljust(16, b"\0")) for accept in accepts):
        return DataError(f"{path}: begins as a picture but cannot be read on; it may be truncated", fix="copy it again", kind="damaged")
    expected = f"expected JPEG, PNG, TIFF, WebP or another of {len(FORMATS)} formats"
    return DataError(f"{path}: not a picture, {expected}", fix="copy it again, or convert it to PNG", kind="format")


def too_large(name: str, image: Image.Image) -> DataError:
    """What is said of a picture over the pixel limit."""
    found = f"{image.width} x {image.height} pixels, expected at most {MAX_PIXELS}"
    return DataError(f"{name}: {found}", fix="cut it into tiles", kind="large")
