"""Templates (what comes from users is escaped), pictures as data URIs and numbers as text: what every page is made of."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

import seenet
from seenet.core.files import write_text, writing_to

LONGEST = 960
"""Pixels of a picture's longer side on a page; larger ones are shrunk."""


def render(path: Path, template: str, **values: Any) -> None:
    """Write a page, whole or not at all; DataError where the disk does not take it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    footer = f"Written by SeENet {seenet.__version__}. One file: it needs no server and no network."
    page = environment.get_template(template).render(footer=footer, **values)
    # A file name of undecodable bytes reaches Python as lone surrogates, which UTF-8 has no form for.
    with writing_to(path, "make room and call it again"):
        write_text(path, page.encode("utf-8", "replace").decode("utf-8"))


def photograph(picture: np.ndarray, longest: int = LONGEST) -> str:
    """Encode an H x W x 3 uint8 picture as a data URI (JPEG), shrunk to `longest` pixels a side."""
    image = Image.fromarray(picture)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=86, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def png(picture: np.ndarray) -> str:
    """Encode an H x W x 3 uint8 picture exactly as a data URI (PNG); up to 256 colours as a palette, at a third of the bytes."""
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
    """Wrap the bytes of a PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def shrunk(ids: np.ndarray, longest: int = LONGEST) -> np.ndarray:
    """Take every n-th row and column of H x W ids, so that no side is longer than `longest`; ids are never mixed."""
    every = -(-max(ids.shape) // longest)
    return ids[::every, ::every] if every > 1 else ids


def percent(share: float | None, missing: str = "absent") -> str:
    """Format a share: 0.4567 -> "45.7 %"; `missing` where there is none."""
    return missing if share is None else f"{100 * share:.1f} %"


def number(count: int) -> str:
    """Format a count: 1234567 -> "1,234,567"."""
    return f"{count:,}"
