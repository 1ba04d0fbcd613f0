"""Decode images and masks to arrays, the same everywhere in SeENet."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.Image import Transpose
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from seenet.core.arrays import finite_limits, no_range, picture_from_array, read_array, scaled
from seenet.core.errors import DataError
from seenet.core.files import replacing
from seenet.core.image_files import BROKEN, safe_image_open, tiff_value_type, too_large
from seenet.core.image_files import MAX_PIXELS as MAX_PIXELS
from seenet.core.labels import LabelSet
from seenet.core.metadata import ORIENTATION, stored_orientation

IMAGE_SUFFIXES = frozenset(
    (
        ".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo",
        ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".sgi", ".tga", ".tif", ".tiff",
        ".webp",
    )
)  # fmt: skip
"""Suffixes of the image files that are listed in a folder."""

DEEP = 2**14
"""Value below which pictures of 16 bits have fewer bits in truth."""
_WIDE = {"I;16", "I;16B", "I;16L", "I;16N"}
"""Pillow's modes of 16-bit grey."""
_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""
_TRANSPOSE = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}  # fmt: skip
"""Operation that undoes each EXIF orientation."""
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
"""Modes whose colours are multiplied by alpha, and the plain modes."""


@dataclass(frozen=True)
class Header:
    """Header of an image file.

    Attributes:
        size: height and width after EXIF rotation.
        mode: Pillow's mode, as stored.
        notes: what decoding converts or drops: `16-bit`, `grey`, `palette`, `alpha`, `CMYK`,
            `EXIF orientation 6`.
        orientation: EXIF orientation, 1 to 8.
    """

    size: tuple[int, int]
    mode: str
    notes: tuple[str, ...]
    orientation: int = 1

    @property
    def sideways(self) -> bool:
        """Whether the EXIF rotation swaps height and width."""
        return self.orientation in _SIDEWAYS


def read_header(path: Path) -> Header:
    """Read the header of an image file without decoding it.

    Raises:
        DataError: as `read_image`, as far as the header tells.
    """
    if path.suffix.lower() == ".npy":
        height, width = read_array(path, mapped=True).shape[:2]
        return Header((height, width), "array", ())
    with safe_image_open(path) as image:
        turn = orientation(image)
        # For a TIFF's own tag Pillow has swapped the size already.
        tag = image.tag_v2.get(ORIENTATION) if isinstance(image, TiffImageFile) else None
        swap = turn in _SIDEWAYS and tag not in _SIDEWAYS
        size = image.size if swap else image.size[::-1]
        return Header(size, image.mode, _notes(image, turn), turn)


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width after EXIF rotation, from the header; errors as `read_header`."""
    return read_header(path).size


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1 if it cannot be read."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except BROKEN:
        # A user's image with damaged metadata. Pillow raises only once, so the value is stored.
        found = stored_orientation(image)
        image.getexif()[ORIENTATION] = found
    return int(found) if found in range(2, 9) else 1


def _notes(image: Image.Image, turn: int) -> tuple[str, ...]:
    # Pillow has no mode for 16-bit colours: its readers keep the high bytes.
    deep = any(
        mode in str(tile)
        for tile in getattr(image, "tile", ())
        for mode in ("'RGB;16", "'RGBA;16", "'RGBX;16", "'LA;16")
    )
    wide = image.mode in _WIDE or (image.mode == "I" and not value_type(image))
    notes = {
        "16-bit": wide or deep,
        "32-bit": image.mode in {"I", "F"} and not wide,
        "grey": image.mode in {*_WIDE, "1", "L", "LA", "La", "I", "F"},
        "palette": image.mode in {"P", "PA"},
        "alpha": image.mode in {"LA", "PA", "RGBA", "La", "RGBa"} or "transparency" in image.info,
        image.mode: image.mode in {"CMYK", "YCbCr", "LAB", "HSV"},
        f"EXIF orientation {turn}": turn != 1,
    }
    return tuple(note for note, holds in notes.items() if holds)


def read_image(
    path: Path, *, upright: bool = True, value_range: tuple[float, float] | None = None
) -> np.ndarray:
    """Decode an image file of any format in `image_files.FORMATS`.

    The image is rotated by EXIF. Grey of 12 or 16 bits is scaled to 0..255; of 16-bit colours the
    high byte is kept. Grey, palette and CMYK are converted, alpha is dropped.

    Args:
        path: the file.
        upright: whether to rotate it by EXIF.
        value_range: values of a grey image that become 0 and 255; those outside are clipped.
            None: the whole range of 8 or 16 bits.

    Returns:
        H x W x 3 uint8 RGB.

    Raises:
        DataError: missing, empty, unreadable, truncated, animated, or over the pixel limit.
    """
    if path.suffix.lower() == ".npy":
        return picture_from_array(path, value_range)
    with safe_image_open(path) as image:
        if not upright:
            turned_back(image)
        return from_pil(image, str(path), value_range)


def turned_back(image: Image.Image) -> None:
    """Forget the EXIF rotation of an image that is not decoded yet."""
    image.getexif()[ORIENTATION] = 1


def from_pil(
    image: Image.Image,
    name: str = "the picture",
    value_range: tuple[float, float] | None = None,
) -> np.ndarray:
    """Convert a Pillow image as `read_image` does; `name` is used in errors.

    Returns:
        H x W x 3 uint8 RGB.

    Raises:
        DataError: over the pixel limit, or values of unknown range.
    """
    if image.width * image.height > MAX_PIXELS:
        raise too_large(name, image.size)
    if value_range is not None and image.mode in {*_WIDE, "L", "I", "F"}:
        values = np.asarray(_upright(image)).astype(np.float64)
        return np.repeat(scaled(values, value_range)[:, :, None], 3, axis=2)
    kind = value_type(image)
    bits, inverted = tiff_values(image)
    image = _upright(image)
    if kind:
        values = np.asarray(image)
        if kind in {"int8", "uint32"}:  # Pillow has no modes for these and gives uint8 and int32
            values = values.view(kind)
        raise no_range(name, kind, finite_limits(values))
    if image.mode in _WIDE or image.mode == "I":
        grey = eight_bits(np.asarray(image), bits, inverted=inverted)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA")  # so that a transparent palette entry keeps its colour
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def value_type(image: Image.Image) -> str:
    """Return the type of an image's values, as `float32`; "" for unsigned 8 or 16 bits."""
    if isinstance(image, TiffImageFile):
        return tiff_value_type(image.tag_v2)
    # Mode I also holds the 16 bits of a PGM (in older Pillows of a PNG too), scaled to 0..65535.
    if image.mode == "I":
        return "" if image.format in {"PNG", "PPM"} else "int32"
    return "float32" if image.mode == "F" else ""


def tiff_values(image: Image.Image) -> tuple[int, bool]:
    """Return the bits of a TIFF's values, and whether 0 is white; (16, False) for other images."""
    if not isinstance(image, TiffImageFile):
        return 16, False
    white_is_zero = image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0
    return image.tag_v2.get(BITSPERSAMPLE, (1,))[0], white_is_zero


def eight_bits(values: np.ndarray, bits: int, *, inverted: bool = False) -> np.ndarray:
    """Scale values of `bits` bits to uint8, rounded, full range to full range.

    `inverted`: 0 is white.
    """
    top = 2**bits - 1
    if bits != 8:
        scaled = (values.astype(np.uint32) * 510 + top) // (2 * top)
        values = scaled.clip(max=255).astype(np.uint8)
    return 255 - values if inverted else values


def highest_value(path: Path) -> int | None:
    """Return the largest value of a grey picture of 16 bits; None for other pictures."""
    with safe_image_open(path) as image:
        if image.mode not in _WIDE and not (image.mode == "I" and not value_type(image)):
            return None
        return int(np.asarray(image).max())


def pil_bands(image: Image.Image, name: str) -> np.ndarray:
    """Return the H x W x B values of a Pillow image as stored, of a palette its RGBA.

    Raises:
        DataError: over the pixel limit, or colours of 16 bits, of which Pillow keeps the high byte.
    """
    if image.width * image.height > MAX_PIXELS:
        raise too_large(name, image.size)
    if "16-bit" in _notes(image, 1) and image.mode not in {*_WIDE, "I"}:
        raise DataError(
            f"{name}: colours of 16 bits in a {image.format}, of which `channels` cannot be taken",
            fix="save it as TIFF or .npy",
            kind="format",
        )
    image = _upright(image)
    values = np.asarray(image.convert("RGBA") if image.mode in {"P", "PA"} else image)
    if image.mode == "I" and not value_type(image):
        values = values.astype(np.uint16)
    return values if values.ndim == 3 else values[..., None]


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Return H x W x 3 of H x W x C to look at: the first three channels, or the first as grey."""
    if image.shape[2] == 3:
        return image
    shown = image[..., :3] if image.shape[2] > 3 else np.repeat(image[..., :1], 3, axis=2)
    return np.ascontiguousarray(shown)


def whole_numbers(values: np.ndarray, path: Path) -> np.ndarray:
    """Return ids that are stored as other numbers as int32.

    Raises:
        DataError: a value is no whole number of 32 bits.
    """
    if values.ndim != 2:
        raise DataError(
            f"{path}: an array of shape {values.shape}, expected H x W ids",
            fix="save one id a pixel",
            kind="mask-kind",
        )
    if values.dtype.kind != "f":
        return values.astype(np.uint8 if values.dtype.itemsize == 1 else np.int32)
    wrong = ~(np.isfinite(values) & (values == np.round(values)) & (np.abs(values) < 2**31))
    if wrong.any():
        raise DataError(
            f"{path}: {values.dtype} values such as {values[wrong][0]:.6g} "
            f"({int(wrong.sum())} pixels), expected ids, which are whole numbers",
            fix="save ids; scores need a threshold first",
            kind="mask-kind",
            pixels=int(wrong.sum()),
        )
    return values.astype(np.int32)


def read_ids(path: Path, *, upright: bool = True) -> np.ndarray:
    """Read the label ids of a mask as stored: palette indices, grey values of 8 to 32 bits, whole
    numbers stored as floats, or an array of them (.npy).

    Args:
        path: the file.
        upright: whether to rotate it by EXIF.

    Returns:
        H x W, uint8 if the file has 8 bits, else int32.

    Raises:
        DataError: as `read_image`, and for a colour image.
    """
    if path.suffix.lower() == ".npy":
        return whole_numbers(read_array(path), path)
    with safe_image_open(path) as image:
        image = _upright(image) if upright else image
        if image.mode in _WIDE or image.mode in {"I", "F"}:
            return whole_numbers(_stored(image), path)
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


def _stored(image: Image.Image) -> np.ndarray:
    """Return grey values with their own type: Pillow reads int16 and int8 as unsigned."""
    values = np.asarray(image)
    kind = value_type(image)
    if kind in {"int8", "int16", "uint32"}:
        return values.astype(np.uint16 if kind == "int16" else values.dtype).view(kind)
    return values if values.dtype.kind == "f" else values.astype(np.int32)


def read_channel(path: Path, channel: str, *, upright: bool = True) -> np.ndarray:
    """Read one channel of a colour mask: `red`, `green`, `blue` or `alpha`.

    Returns:
        H x W uint8.

    Raises:
        DataError: as `read_image`, and for an image without this channel.
    """
    with safe_image_open(path) as image:
        image = _upright(image) if upright else image
        if image.mode == "P" and channel == "alpha":
            image = image.convert("RGBA")
        names = image.getbands()
        letter = channel[0].upper()
        if letter not in names:
            raise DataError(
                f"{path}: mode {image.mode}, expected a channel {channel}",
                fix="take `channel` out, or save masks of one kind",
                kind="mask-kind",
                pixels=image.width * image.height,
            )
        return np.array(image.getchannel(letter))


def read_colours(path: Path, *, upright: bool = True) -> np.ndarray:
    """Read the H x W x 3 uint8 colours of a mask; palette indices become colours, alpha is dropped.

    `upright`: whether to rotate it by EXIF.

    Raises:
        DataError: as `read_image`, and for an image without colours.
    """
    with safe_image_open(path) as image:
        image = _upright(image) if upright else image
        if image.mode not in {"RGB", "RGBA", "P"}:
            raise DataError(
                f"{path}: mode {image.mode}, expected a mask in colour",
                fix="declare `decode: index` for ids",
                kind="mask-kind",
                pixels=image.width * image.height,
            )
        return np.array(image.convert("RGBA" if image.mode == "P" else "RGB").convert("RGB"))


def write_mask(path: Path, mask: np.ndarray, labels: LabelSet) -> None:
    """Write H x W ids as a PNG with the classes' palette, or as 16-bit grey above 256 classes."""
    if labels.num_classes > 256:
        image = Image.fromarray(mask.astype(np.uint16))
    else:
        image = Image.fromarray(mask.astype(np.uint8))
        image.putpalette(labels.palette().tobytes())
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")


def _upright(image: Image.Image) -> Image.Image:
    """Decode an image and rotate it by EXIF; return the same object if there is no rotation."""
    image.load()  # first: the tag of a PNG may follow the pixels
    operation = _TRANSPOSE.get(orientation(image))
    return image if operation is None else image.transpose(operation)
