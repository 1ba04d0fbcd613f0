"""Figures of an evaluation: error map, panel and confusion matrix."""

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from seenet.core.images import as_rgb
from seenet.core.labels import LabelSet
from seenet.prediction.result import colourize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR_COLOURS = {"right": (222, 226, 230), "wrong": (213, 94, 0), "ignored": (52, 58, 64)}
"""Light grey, vermilion and dark grey, which differ for the colour-blind and in grey print."""

PANEL_SIDE = 4096
"""Largest side of each of a panel's four parts, pixels."""

MOST_NAMED = 40
"""Largest number of classes whose names fit beside the confusion matrix."""


def error_map(truth: np.ndarray, prediction: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Colour each pixel as right, wrong or ignored (`ERROR_COLOURS`), H x W x 3 uint8."""
    kind = (truth != prediction).astype(np.uint8)
    kind[truth == labels.ignore] = 2
    colours = np.array(list(ERROR_COLOURS.values()), np.uint8)
    coloured: np.ndarray = colours[kind]
    return coloured


def panel(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, labels: LabelSet
) -> Image.Image:
    """Place image, truth, prediction and error map side by side, H x (4 W + 3 gaps), RGB.

    An image of another size than the truth is resized to it (bilinear). Sides over `PANEL_SIDE` are
    subsampled.
    """
    image = as_rgb(image)
    if image.shape[:2] != truth.shape:
        size = (truth.shape[1], truth.shape[0])
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    step = -(-max(truth.shape) // PANEL_SIDE)
    image, truth, prediction = (array[::step, ::step] for array in (image, truth, prediction))
    gap = np.full((truth.shape[0], max(2, truth.shape[1] // 100), 3), 255, np.uint8)
    errors = error_map(truth, prediction, labels)
    row = [image, gap, colourize(truth, labels), gap, colourize(prediction, labels), gap, errors]
    return Image.fromarray(np.concatenate(row, axis=1))


def confusion_figure(matrix: np.ndarray, labels: LabelSet) -> bytes:
    """Draw the confusion matrix as a PNG: truth in rows, each cell in percent of its row.

    Rows without truth stay empty.
    """
    # matplotlib is slow to import, and evaluation during training does not draw. pyplot would keep
    # global state and choose a backend.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = matrix.sum(1, keepdims=True)
    share = np.divide(100.0 * matrix, rows, out=np.full(matrix.shape, np.nan), where=rows > 0)
    count = labels.num_classes
    named = count <= MOST_NAMED
    side = min(16.0, 2.5 + (0.42 * count if named else 0.05 * count))
    figure = Figure(figsize=(side + 1.2, side), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    if named:
        axes.set_xticks(
            range(count), labels.classes, rotation=60, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks(range(count), labels.classes)
        for t, p in np.argwhere(share >= 0.5):
            axes.text(
                p,
                t,
                f"{share[t, p]:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share[t, p] > 55 else "black",
            )
    figure.colorbar(shown, ax=axes, label="% of the class's pixels", shrink=0.8)
    return png_bytes(figure)


def png_bytes(figure: "Figure") -> bytes:
    """Return the figure as a PNG file; the bytes do not depend on the date or the version."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
