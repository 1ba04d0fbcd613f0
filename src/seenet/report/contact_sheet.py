"""The contact sheet of `seenet data init`: nine pairs, so that a person sees whether masks fit."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from seenet.core.errors import DataError
from seenet.core.files import replacing, writing_to
from seenet.core.images import as_rgb
from seenet.core.labels import LabelSet
from seenet.data.split import FileSplit
from seenet.prediction.result import blend, colourize
from seenet.report.html import photograph, render, shrunk, spread

PAIRS = 9
COLUMNS = 3
SIDE = 240
"""Longest side of a picture on the PNG, pixels."""
GAP = 12
LINE = 18
SHOWN_CLASSES = 40
"""Classes in the legend of the PNG."""


def write_contact_sheet(split: FileSplit, out: Path) -> Path:
    """Write OUT/index.html and OUT/pairs.png: pictures, and their masks over them.

    Args:
        split: pictures with masks; nine of them are shown, those that can be read.
        out: folder; the files of an earlier sheet are replaced.

    Returns:
        The page.

    Raises:
        DataError: no pair can be read, or a file cannot be written.
    """
    shown = []
    first: DataError | None = None
    for index in spread(len(split), PAIRS):
        try:
            image, mask = split.read(index)
        except DataError as error:
            first = first or error
            continue
        shown.append((split.key(index), image, mask))
    if not shown:
        raise first or DataError(f"{split.name}: no pair can be read")
    views = [
        (key, shrunk(image), blend(shrunk(image), shrunk(mask), split.labels, 0.6), shrunk(mask))
        for key, image, mask in shown
    ]
    out.mkdir(parents=True, exist_ok=True)
    path = out / "pairs.png"
    with writing_to(path), replacing(path) as temporary:
        _sheet([(key, image, over) for key, image, over, _ in views], split.labels).save(
            temporary, format="PNG"
        )
    render(
        out / "index.html",
        "gallery.html.j2",
        title=f"{split.name.rpartition('/')[0]}: do the masks fit the pictures?",
        intro="Each row shows a picture, its mask over it, and the mask. If a mask lies wrongly or "
        "classes are mixed up, change seenet.yaml. The command seenet data check reads all pairs.",
        rows=[
            {
                "caption": key,
                "images": [
                    ("picture", photograph(image)),
                    ("mask over it", photograph(over)),
                    ("mask", photograph(colourize(mask, split.labels))),
                ],
                "shares": [],
            }
            for key, image, over, mask in views
        ],
        labels=split.labels,
        links=[],
    )
    return out / "index.html"


def _sheet(views: list[tuple[str, np.ndarray, np.ndarray]], labels: LabelSet) -> Image.Image:
    """Draw pairs in a grid, with a legend below."""
    names = list(zip(labels.classes, labels.colours, strict=True))[:SHOWN_CLASSES]
    in_row = 4
    small = [[_thumbnail(pixels) for pixels in pair] for _, *pair in views]
    tall = max(picture.height for pair in small for picture in pair)
    rows = -(-len(views) // COLUMNS)
    legend = -(-len(names) // in_row)
    width = COLUMNS * (2 * SIDE + GAP) + GAP
    height = rows * (tall + LINE + GAP) + GAP + legend * LINE + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, ((key, *_), pair) in enumerate(zip(views, small, strict=True)):
        left = GAP + number % COLUMNS * (2 * SIDE + GAP)
        top = GAP + number // COLUMNS * (tall + LINE + GAP)
        for place, picture in enumerate(pair):
            sheet.paste(picture, (left + place * SIDE, top))
        draw.text((left, top + tall + 2), _printable(key)[-70:], fill="black")
    top = GAP + rows * (tall + LINE + GAP)
    for number, (name, colour) in enumerate(names):
        left = GAP + number % in_row * ((width - GAP) // in_row)
        line = top + number // in_row * LINE
        draw.rectangle((left, line, left + 12, line + 12), fill=colour, outline="black")
        draw.text((left + 18, line), _printable(name)[:40], fill="black")
    return sheet


def _thumbnail(pixels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(as_rgb(pixels))
    picture.thumbnail((SIDE - 2, SIDE))
    return picture


def _printable(text: str) -> str:
    """Return text as the font of Pillow can draw it."""
    return text.encode("latin-1", "replace").decode("latin-1")
