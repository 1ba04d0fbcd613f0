"""Drawing that the paper's figures share: grids of panels, plots, legends, a figure a picture."""

import logging
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from seenet.core.errors import DataError, UsageError
from seenet.core.files import check_free, replacing, writing_to
from seenet.core.labels import LabelSet
from seenet.core.processor import lacks_memory
from seenet.core.progress import bar
from seenet.evaluation.confusion import score_image
from seenet.evaluation.pictures import png_bytes
from seenet.prediction.base import BasePredictor
from seenet.prediction.batch import PredictReport
from seenet.prediction.pictures import Input

log = logging.getLogger("seenet")

PANEL, GAP, TEXT, LINE = 2.9, 0.1, 0.24, 0.17
"""Inches: width of a panel, space between panels, height of a label with its margin, and of a line
of the caption.
"""
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a $ in a user's text starts no formula
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlepad": 4,
    "axes.labelsize": 8.5,
    "axes.labelpad": 3,
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
    **{f"figure.constrained_layout.{side}_pad": GAP / 2 for side in "wh"},
    **{f"figure.constrained_layout.{side}space": 0 for side in "wh"},
}
"""Settings of matplotlib for a grid of panels."""
DPI = 130
COLOURS = "viridis"
"""Perceptually uniform, also in grey print."""
LONGEST = 960
"""Pixels of a map's longer side; a panel shows no more."""


@dataclass(frozen=True)
class Panel:
    """Picture (H x W x 3 uint8) or map (H x W, drawn from its least to its greatest value)."""

    picture: np.ndarray
    title: str = ""
    note: str = ""
    """Text below."""


Row = tuple[str, Sequence[Panel | None]]
"""Text to the left of a row, and its panels; None leaves a place empty."""


def map_panel(values: np.ndarray, title: str, tensor: Tensor | None = None) -> Panel:
    """Return a map with its range below, and the grid of the 1 x C x h x w tensor it comes from."""
    note = f"{values.min():.3g} to {values.max():.3g}"
    if tensor is not None:
        channels, height, width = tensor.shape[1:]
        note += f" ({channels} channels, {height} x {width} points)"
    return Panel(values, title, note)


def panel_grid(rows: Sequence[Row], caption: str, legend: Sequence[Patch] = ()) -> bytes:
    """Draw rows of panels, then legend and caption; return a PNG."""
    columns = max(len(panels) for _, panels in rows)
    width = columns * (PANEL + GAP) + GAP
    lines = textwrap.wrap(caption, round(14.5 * width))
    heights = [PANEL * _aspect(panels) + 2 * TEXT for _, panels in rows]
    below = TEXT * -(-len(legend) // (2 * columns)) + LINE * len(lines) + 2 * GAP
    size = width, sum(heights) + below
    with rc_context(STYLE):
        # No pyplot: it would keep state and pick a backend.
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        (upper,), (lower,) = figure.subfigures(
            2, squeeze=False, height_ratios=(sum(heights), below)
        )
        grid = upper.subplots(
            len(rows), columns, squeeze=False, height_ratios=heights,
            subplot_kw={"xticks": [], "yticks": []},
        )  # fmt: skip
        for places, (side, panels) in zip(grid, rows, strict=True):
            places[0].set_ylabel(side)
            for axes, panel in zip(places, panels, strict=False):
                if panel is not None:
                    axes.imshow(panel.picture, cmap=COLOURS)
                    axes.set(title=panel.title, xlabel=panel.note)
        if legend:
            lower.legend(
                handles=list(legend), ncols=2 * columns, frameon=False, loc="upper center",
                borderaxespad=0, borderpad=0,
            )  # fmt: skip
        text = "\n".join(lines)
        lower.text(GAP / width, GAP / below, text, va="bottom", linespacing=1.3)
        return png_bytes(figure)


def _aspect(panels: Sequence[Panel | None]) -> float:
    """Return height / width of the tallest panel, from 0.15 to 2: a strip has a figure too."""
    ratios = [panel.picture.shape[0] / panel.picture.shape[1] for panel in panels if panel]
    return float(min(2.0, max([0.15, *ratios])))


def plot_of(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of this size in inches with one pair of axes, open at the top and right."""
    # No pyplot: it would keep state and pick a backend.
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def legend_key(name: str, colour: Sequence[int]) -> Patch:
    """Return the legend's entry for an RGB colour of 0 to 255."""
    rgb = tuple(np.array(colour) / 255)
    return Patch(facecolor=rgb, edgecolor="0.6", linewidth=0.6, label=name)


def class_legend(masks: Iterable[np.ndarray | None], labels: LabelSet) -> list[Patch]:
    """Return an entry for each class in any of the masks, and one for ignored pixels."""
    ids = sorted({int(i) for mask in masks if mask is not None for i in np.unique(mask)})
    keys = [
        legend_key(labels.classes[i], labels.colours[i]) for i in ids if 0 <= i < labels.num_classes
    ]
    return [*keys, legend_key("ignored", (255, 255, 255))] if labels.ignore in ids else keys


def miou_note(truth: np.ndarray | None, mask: np.ndarray, labels: LabelSet) -> str:
    """Return a mask's mIoU over the classes of its own picture as text; empty without a truth."""
    if truth is None:
        return ""
    miou = score_image(0, truth, mask, labels.num_classes, labels.ignore).miou(labels.num_classes)
    return "mIoU: nothing is scored" if miou is None else f"mIoU {100 * miou:.1f} %"


def in_colours(values: np.ndarray) -> np.ndarray:
    """Colour an H x W map as a panel does: H x W x 3 uint8."""
    return np.asarray(ScalarMappable(cmap=COLOURS).to_rgba(values, bytes=True)[..., :3])


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Return the size at which a picture's map is drawn: its own, or smaller in proportion."""
    scale = min(1.0, LONGEST / max(height, width))
    return max(1, round(scale * height)), max(1, round(scale * width))


def model_names(files: Sequence[Path], otherwise: Sequence[str]) -> list[str]:
    """Name models by their run's folder or their file, or by `otherwise` where two are the same."""
    names = [
        file.resolve().parent.name if file.stem in {"model", "result"} else file.stem
        for file in files
    ]
    return [
        name if names.count(name) == 1 else other
        for name, other in zip(names, otherwise, strict=True)
    ]


def check_png(path: Path, *, overwrite: bool) -> None:
    """Raise UsageError where `path` is no .png, DataError where it may not be written."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: expected a name that ends in .png")
    check_free([path], overwrite=overwrite)


def write_figure(path: Path, data: bytes) -> None:
    """Write a whole file or none; DataError where the disk does not take it."""
    with writing_to(path), replacing(path) as temporary:
        temporary.write_bytes(data)


def draw_each(
    predictor: BasePredictor,
    pictures: Sequence[Input],
    out: Path,
    draw: Callable[[Input, np.ndarray], bytes],
    *,
    what: str,
    overwrite: bool = False,
) -> PredictReport:
    """Draw a figure of each picture to OUT/NAME.png; a picture that fails is noted in the report.

    Args:
        predictor: the report says which model and settings it has.
        pictures: what to read.
        out: the folder.
        draw: makes a PNG of a picture, H x W x C uint8.
        what: shown beside the progress bar.
        overwrite: replace figures.

    Raises:
        DataError: a figure exists (without `overwrite`); nothing is drawn.
    """
    paths = [out / f"{item.name}.png" for item in pictures]
    check_free(paths, overwrite=overwrite)
    report = PredictReport(out, predictor.info, predictor.settings)
    with bar(what, len(pictures)) as advance:
        for item, path in zip(pictures, paths, strict=True):
            try:
                write_figure(path, draw(item, predictor.reader(item.path)))
            except (DataError, MemoryError, RuntimeError) as error:
                reason = str(error)
                if lacks_memory(error):
                    size = "x".join(map(str, predictor.reader.size(item.path)))
                    reason = (
                        f"{item.path}: {size} pixels are too many for this machine's memory; "
                        "use a smaller copy"
                    )
                elif not isinstance(error, DataError):
                    raise
                log.warning("failed: %s", reason)
                report.failed.append((item.path, reason))
            else:
                report.written += 1
            advance(note=item.name)
    return report
