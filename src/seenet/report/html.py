"""Parts of every page: templates (values are escaped), images as data URIs, numbers as text."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

import seenet
from seenet.core.files import write_text, writing_to
from seenet.core.images import as_rgb

LONGEST = 960
"""Longest side of an image on a page, pixels; larger images are shrunk."""


def render(path: Path, template: str, **values: Any) -> None:
    """Render a template of this package and write the page.

    Raises:
        DataError: the page cannot be written; nothing of it remains.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent}
    footer = f"Written by SeENet {seenet.__version__}. One file: it needs no server and no network."
    page = environment.get_template(template).render(footer=footer, **values)
    # File names that are not UTF-8 reach Python as lone surrogates, which UTF-8 cannot encode.
    with writing_to(path, "make room and call it again"):
        write_text(path, page.encode("utf-8", "replace").decode("utf-8"))


def photograph(image: np.ndarray, longest: int = LONGEST) -> str:
    """Encode an H x W x C uint8 image as a data URI (JPEG) of at most `longest` pixels a side."""
    shown = Image.fromarray(as_rgb(image))
    shown.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    shown.save(stream, format="JPEG", quality=86, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def png(image: np.ndarray) -> str:
    """Encode an H x W x 3 uint8 image losslessly as a data URI (PNG).

    An image of up to 256 colours gets a palette, which takes a third of the bytes.
    """
    colours, ids = np.unique(image.reshape(-1, 3) @ np.array([65536, 256, 1]), return_inverse=True)
    shown = Image.fromarray(image)
    if len(colours) <= 256:
        shown = Image.fromarray(ids.reshape(image.shape[:2]).astype(np.uint8))
        palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], 1)
        shown.putpalette(palette.astype(np.uint8).tobytes())
    stream = io.BytesIO()
    shown.save(stream, format="PNG", optimize=True)
    return png_uri(stream.getvalue())


def png_uri(data: bytes) -> str:
    """Return the bytes of a PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def shrunk(ids: np.ndarray, longest: int = LONGEST) -> np.ndarray:
    """Subsample H x W ids by a whole step, so that no side is longer than `longest`."""
    step = max(1, -(-max(ids.shape) // longest))
    return ids[::step, ::step]


def spread(total: int, count: int) -> list[int]:
    """Return up to `count` of `total` indices, evenly spread."""
    return sorted(set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()))


def percent(share: float | None, missing: str = "absent") -> str:
    """Format a share: 0.4567 -> "45.7 %"; `missing` for None."""
    return missing if share is None else f"{100 * share:.1f} %"


def number(count: int) -> str:
    """Format a count: 1234567 -> "1,234,567"."""
    return f"{count:,}"
