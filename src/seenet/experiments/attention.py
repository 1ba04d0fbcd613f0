"""Boundary attention A = 1 - sigmoid(P') (Eq. 3): maps, and means at boundaries and elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from seenet.core.errors import UsageError
from seenet.core.images import as_rgb
from seenet.evaluation.metrics.boundaries import transition_distance
from seenet.experiments.drawing import (
    Panel,
    class_legend,
    draw_each,
    in_colours,
    map_panel,
    panel_grid,
    shown_size,
)
from seenet.experiments.probe import find_model_with_stages
from seenet.model import VARIANTS
from seenet.model.files import read_options
from seenet.prediction.batch import PredictReport
from seenet.prediction.loading import load_trained
from seenet.prediction.pictures import Input, find_inputs
from seenet.prediction.predictor import Predictor
from seenet.prediction.result import colourize, to_mask

WIDTH = 3
"""Distance in pixels up to which a pixel is near a predicted boundary (docs/metrics.md)."""
CHANNELS = 4
"""Number of single channels that a figure shows."""


class Attention(NamedTuple):
    """Sums of the attention near predicted boundaries and elsewhere.

    A pixel's attention is the mean over the channels, enlarged to the picture.
    """

    near_sum: float = 0.0
    near_pixels: int = 0
    elsewhere_sum: float = 0.0
    elsewhere_pixels: int = 0

    def result(self) -> dict[str, Any]:
        """Return the means (0..1, None where there is no pixel) and their difference."""
        near = self.near_sum / self.near_pixels if self.near_pixels else None
        elsewhere = self.elsewhere_sum / self.elsewhere_pixels if self.elsewhere_pixels else None
        return {
            "near": near,
            "elsewhere": elsewhere,
            "difference": None if near is None or elsewhere is None else near - elsewhere,
            "near_pixels": self.near_pixels,
            "elsewhere_pixels": self.elsewhere_pixels,
        }

    def line(self) -> str:
        """Return the numbers as one line for people."""
        values = self.result()
        near, elsewhere, difference = values["near"], values["elsewhere"], values["difference"]
        if difference is None:
            where = "elsewhere" if self.near_pixels else f"within {WIDTH} of a predicted boundary"
            return f"no pixel {where}, nothing to compare"
        return (
            f"{near:.3f} within {WIDTH} pixels of predicted boundaries, {elsewhere:.3f} elsewhere: "
            f"{abs(difference):.3f} {'higher' if difference > 0 else 'lower'} at boundaries"
        )


@dataclass
class AttentionReport:
    """Report of the figures, and the numbers of each picture by its path."""

    pictures: PredictReport
    found: dict[str, Attention] = field(default_factory=dict)

    @property
    def all(self) -> Attention:
        """Pool the pixels of all pictures."""
        return Attention(*map(sum, zip(*self.found.values(), strict=True)))

    def result(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "model": self.pictures.model,
            "width": WIDTH,
            "images": [{"image": path, **found.result()} for path, found in self.found.items()],
            "all": self.all.result(),
        }

    def lines(self) -> list[str]:
        """Return a line for each picture, and one for all of several."""
        lines = [f"{path}: {attention.line()}" for path, attention in self.found.items()]
        return [*lines, f"all {len(lines)}: {self.all.line()}"] if len(lines) > 1 else lines


def write_attention(
    model: str, images: Sequence[str], out: Path, *, device: str = "auto", overwrite: bool = False
) -> AttentionReport:
    """Draw the attention of each picture to OUT/NAME.png.

    Raises:
        UsageError: a model without boundary attention.
        DataError: no such model or picture, or a figure exists (without `overwrite`).
    """
    path = find_model_with_stages(model)
    variant = read_options(path).get("variant")
    having = [name for name, row in VARIANTS.items() if row.refine == "bam"]
    # A file that is no model of SeENet has no variant, and loading it says so.
    if variant is not None and variant not in having:
        raise UsageError(
            f"{path}: variant {variant} has no boundary attention; "
            f"the variant that has: {', '.join(having)}"
        )
    pictures = find_inputs(images, out)
    predictor = load_trained(path, device)
    found: dict[str, Attention] = {}

    def draw(item: Input, image: np.ndarray) -> bytes:
        data, found[str(item.path)] = attention_figure(predictor, image)
        return data

    report = draw_each(predictor, pictures, out, draw, what="attention", overwrite=overwrite)
    return AttentionReport(report, found)


def attention_figure(predictor: Predictor, image: np.ndarray) -> tuple[bytes, Attention]:
    """Return the PNG and the numbers of a picture, H x W x 3 uint8."""
    features = predictor.features(image)
    network: Any = predictor.model
    labels = predictor.labels
    maps = features["attention"].cpu().double()
    mask = to_mask(features["logits"][0])

    def enlarge(part: Tensor, size: tuple[int, int] | None = None) -> np.ndarray:
        return np.asarray(network.resize(part, features["logits"], size)[0, 0])

    mean = enlarge(maps.mean(1, keepdim=True))
    distance = transition_distance(mask, labels.ignore)
    attention = compare(mean, distance)
    outlined = in_colours(mean)
    if distance is not None:
        outlined[distance <= max(1, max(mask.shape) // 500)] = 255
    variances = maps[0].var((1, 2), correction=0)
    channels = variances.argsort(descending=True, stable=True)[:CHANNELS].tolist()
    size = shown_size(*mask.shape)
    top = [
        Panel(as_rgb(image), "picture"),
        Panel(colourize(mask, labels), "segmentation"),
        map_panel(mean, "attention, mean over channels", maps),
        Panel(outlined, "the same with the segmentation's outlines"),
    ]
    below = [map_panel(enlarge(maps[:, [i]], size), f"channel {i}") for i in channels]
    caption = (
        "Boundary attention A = 1 - sigmoid(P') (Eq. 3), enlarged bilinearly; each map in its own "
        "colours, from the least value (dark blue) to the greatest (yellow). Second row: the "
        f"channels that vary most over this picture. Mean attention: {attention.line()}."
    )
    return panel_grid([("", top), ("", below)], caption, class_legend([mask], labels)), attention


def compare(attention: np.ndarray, distance: np.ndarray | None) -> Attention:
    """Sum an H x W map where `distance` is at most `WIDTH`, and elsewhere.

    `distance` is the `transition_distance` of the predicted mask; None: it has no boundary.
    """
    near = np.zeros(attention.shape, bool) if distance is None else distance <= WIDTH
    return Attention(
        float(attention[near].sum()),
        int(near.sum()),
        float(attention[~near].sum()),
        int((~near).sum()),
    )
