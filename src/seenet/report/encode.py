"""Pictures as data URIs, shares as text."""

import base64
import io

import numpy as np
from PIL import Image

LONGEST = 960
"""Pixels of a picture's longer side on a page; larger ones are shrunk."""


def photograph(picture: np.ndarray, longest: int = LONGEST) -> str:
    """Data URI (JPEG) of an H x W x 3 uint8 picture."""
    image = Image.fromarray(picture)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=86, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def png(picture: np.ndarray) -> str:
    """Data URI (PNG) of an H x W x 3 uint8 picture, exact; up to 256 colours as a palette, at a third of the bytes."""
    colours, ids = np.unique(picture.reshape(-1, 3) @ np.array([65536, 256, 1]), return_inverse=True)
    if len(colours) <= 256:
        image = Image.fromarray(ids.reshape(picture.shape[:2]).astype(np.uint8))
        image.putpalette(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], 1).astype(np.uint8).tobytes())
    else:
        image = Image.fromarray(picture)
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return png_uri(stream.getvalue())


def png_uri(data: bytes) -> str:
    """Data URI of a PNG file's bytes."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def shrunk(ids: np.ndarray, longest: int = LONGEST) -> np.ndarray:
    """H x W ids for show, every n-th row and column, so that no side is longer than `longest`; never a mixture of ids."""
    every = -(-max(ids.shape) // longest)
    return ids[::every, ::every] if every > 1 else ids


def percent(share: float | None, missing: str = "absent") -> str:
    """0.4567 -> "45.7 %"; `missing` where there is none."""
    return missing if share is None else f"{100 * share:.1f} %"


def number(count: int) -> str:
    """1234567 -> "1,234,567"."""
    return f"{count:,}"
