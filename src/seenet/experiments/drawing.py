"""What the paper's figures share: panels in a grid as PNG, where they go, what models are called, one figure a picture."""

import logging
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from seenet.core.errors import DataError, UsageError
from seenet.core.files import check_free, replacing
from seenet.core.images import read_image
from seenet.core.labels import LabelSet
from seenet.core.processor import lacks_memory
from seenet.core.progress import bar
from seenet.evaluation.pictures import png_bytes
from seenet.prediction.base import BasePredictor
from seenet.prediction.batch import PredictReport
from seenet.prediction.inputs import Input

log = logging.getLogger("seenet")

PANEL, GAP, WORDS, LINE = 2.9, 0.1, 0.24, 0.17
"""Inches: width of a panel, white between panels, height of a line with its margin, and of one within a paragraph."""
DPI = 130
COLOURS = "viridis"
"""Even to the eye, and in grey print."""
LONGEST = 960
"""Pixels of a map's longer side: more than a panel has."""


@dataclass(frozen=True)
class Panel:
    """A picture (H x W x 3 uint8), or a map (H x W, from its least value in dark blue to its greatest in yellow), with words around it."""

    picture: np.ndarray
    title: str = ""
    note: str = ""
    """Stands below."""
    side: str = ""
    """Stands to the left, for a whole row."""


def panel_grid(rows: Sequence[Sequence[Panel | None]], caption: str, legend: Sequence[Patch] = ()) -> bytes:
    """PNG of panels in rows (None leaves a place empty), the legend and the caption below."""
    columns = max(len(row) for row in rows)
    left = WORDS if any(panel and panel.side for row in rows for panel in row) else 0
    width = left + columns * (PANEL + GAP) + GAP
    lines = textwrap.wrap(caption, round(14.5 * width))
    keys = -(-len(legend) // (2 * columns))
    tall = [PANEL * _proportion(row) for row in rows]
    above, below = ([WORDS * any(getattr(p, part) for p in row if p) for row in rows] for part in ("title", "note"))
    height = sum(tall) + sum(above) + sum(below) + GAP * (len(rows) + 1) + WORDS * keys + LINE * len(lines) + GAP
    # A user's words may hold a $, which is no formula.
    with rc_context({"text.parse_math": False}):
        # No pyplot: it would keep state and pick a backend. Places in inches, from the top left.
        figure = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(figure)
        y = GAP
        for row, inches, over, under in zip(rows, tall, above, below, strict=True):
            y += over
            for column, panel in enumerate(row):
                if panel is not None:
                    x = left + GAP + column * (PANEL + GAP)
                    _draw(figure, panel, (x / width, 1 - (y + inches) / height, PANEL / width, inches / height))
            y += inches + under + GAP
        if legend:
            figure.legend(
                handles=list(legend), ncols=2 * columns, fontsize=8.5, frameon=False,
                loc="upper center", bbox_to_anchor=(0.5, 1 - y / height), borderaxespad=0, borderpad=0,
            )  # fmt: skip
        figure.text(GAP / width, GAP / height, "\n".join(lines), fontsize=8.5, va="bottom", linespacing=1.3)
        return png_bytes(figure)


def _draw(figure: Figure, panel: Panel, place: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(place)
    axes.imshow(panel.picture, cmap=COLOURS)
    axes.set_title(panel.title, fontsize=9.5, pad=4)
    axes.set_xlabel(panel.note, fontsize=8.5, labelpad=3)
    axes.set_ylabel(panel.side, fontsize=9.5, labelpad=4)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _proportion(row: Sequence[Panel | None]) -> float:
    """Height over width of the tallest panel; within bounds, so that a strip of one pixel still gives a figure."""
    return float(min(2.0, max([0.15, *(panel.picture.shape[0] / panel.picture.shape[1] for panel in row if panel)])))


def plot_of(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many inches with one pair of axes, without the frame's upper and right side."""
    # No pyplot: it would keep state and pick a backend.
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def class_legend(masks: Iterable[np.ndarray], labels: LabelSet) -> list[Patch]:
    """A key for each class in any of the masks, in the set's order, and one for ignored pixels."""
    found = sorted({int(i) for mask in masks for i in np.unique(mask)})
    keys = [(labels.classes[i], np.array(labels.colours[i]) / 255) for i in found if 0 <= i < labels.num_classes]
    if labels.ignore in found:
        keys.append(("ignored", np.ones(3)))
    return [Patch(facecolor=tuple(colour), edgecolor="0.6", linewidth=0.6, label=name) for name, colour in keys]


def in_colours(values: np.ndarray) -> np.ndarray:
    """H x W map -> H x W x 3 uint8 as a panel shows it, from its least to its greatest value."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros(values.shape)
    picture: np.ndarray = colormaps[COLOURS](scaled, bytes=True)[..., :3]
    return picture


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which a map of a picture is drawn: the picture's own, or smaller in proportion."""
    scale = min(1.0, LONGEST / max(height, width))
    return max(1, round(scale * height)), max(1, round(scale * width))


def value_range(values: np.ndarray) -> str:
    """`0.31 to 4.2`"""
    return f"{values.min():.3g} to {values.max():.3g}"


def model_names(files: Sequence[Path], otherwise: Sequence[str]) -> list[str]:
    """What models (or results) are called: their run's folder, or their file; `otherwise` where that tells two of them not apart."""
    names = [file.resolve().parent.name if file.stem in {"model", "result"} else file.stem for file in files]
    return [name if names.count(name) == 1 else other for name, other in zip(names, otherwise, strict=True)]


def check_png(path: Path, *, overwrite: bool) -> None:
    """UsageError where `path` is no .png; DataError as `check_free`."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: expected a name that ends in .png")
    check_free([path], overwrite=overwrite)


def write_figure(path: Path, data: bytes) -> None:
    """Write beside and rename; DataError where the disk does not take it."""
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); make room or choose another --out") from None


def draw_each(
    predictor: BasePredictor,
    pictures: Sequence[Input],
    out: Path,
    draw: Callable[[Input, np.ndarray], bytes],
    *,
    what: str,
    overwrite: bool = False,
) -> PredictReport:
    """Write OUT/NAME.png, what `draw` makes of each picture (H x W x 3 uint8); one that cannot be read is noted and the rest done.

    Raises DataError where a figure is there already (without `overwrite`), before anything is drawn.
    """
    paths = {item.name: out / f"{item.name}.png" for item in pictures}
    check_free(list(paths.values()), overwrite=overwrite)
    report = PredictReport(out, predictor.info, predictor.settings)
    with bar(what, len(pictures)) as advance:
        for item in pictures:
            try:
                write_figure(paths[item.name], _drawn(item, draw))
            except DataError as error:
                log.warning("failed: %s", error)
                report.failed.append((item.path, str(error)))
            else:
                report.written += 1
            advance(note=item.name)
    return report


def _drawn(item: Input, draw: Callable[[Input, np.ndarray], bytes]) -> bytes:
    image = read_image(item.path)
    try:
        return draw(item, image)
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        size = "x".join(map(str, image.shape[:2]))
        raise DataError(f"{item.path}: {size} pixels are too many for this machine's memory; use a smaller copy") from None
