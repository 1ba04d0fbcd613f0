"""Where boundary attention A = 1 - sigmoid(P') looks (Eq. 3, Sec. 3.3): maps, and a number near boundaries and elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from seenet.core.errors import UsageError
from seenet.evaluation.metrics.boundaries import transition_distance
from seenet.experiments.drawing import Panel, class_legend, draw_each, in_colours, panel_grid, shown_size, value_range
from seenet.experiments.probe import with_stages
from seenet.model import VARIANTS
from seenet.model.files import read_options
from seenet.prediction.batch import PredictReport
from seenet.prediction.colours import colourize
from seenet.prediction.inputs import Input, find_inputs
from seenet.prediction.loading import load_trained
from seenet.prediction.predictor import Predictor, to_mask

WIDTH = 3
"""Pixels from a predicted boundary that count as near it (docs/metrics.md)."""
CHANNELS = 4
"""Single channels that are shown."""


@dataclass(frozen=True)
class Attention:
    """Sums of the attention (mean over channels, enlarged to the picture) near predicted boundaries and elsewhere."""

    near_sum: float
    near_pixels: int
    elsewhere_sum: float
    elsewhere_pixels: int

    def __add__(self, other: "Attention") -> "Attention":
        return Attention(
            self.near_sum + other.near_sum, self.near_pixels + other.near_pixels,
            self.elsewhere_sum + other.elsewhere_sum, self.elsewhere_pixels + other.elsewhere_pixels,
        )  # fmt: skip

    def result(self) -> dict[str, Any]:
        """Means in 0..1, None where there is no pixel, and their difference."""
        near = self.near_sum / self.near_pixels if self.near_pixels else None
        elsewhere = self.elsewhere_sum / self.elsewhere_pixels if self.elsewhere_pixels else None
        difference = near - elsewhere if near is not None and elsewhere is not None else None
        return {
            "near": near, "elsewhere": elsewhere, "difference": difference,
            "near_pixels": self.near_pixels, "elsewhere_pixels": self.elsewhere_pixels,
        }  # fmt: skip

    def line(self) -> str:
        """In words."""
        found = self.result()
        if found["difference"] is None:
            return f"no pixel {'elsewhere' if self.near_pixels else f'within {WIDTH} of a predicted boundary'}, nothing to compare"
        return (
            f"{found['near']:.3f} within {WIDTH} pixels of predicted boundaries, {found['elsewhere']:.3f} elsewhere: "
            f"{abs(found['difference']):.3f} {'higher' if found['difference'] > 0 else 'lower'} at boundaries"
        )


@dataclass
class AttentionReport:
    """What was drawn, and the numbers of each picture by its path."""

    pictures: PredictReport
    found: dict[str, Attention] = field(default_factory=dict)

    @property
    def all(self) -> Attention:
        """Pooled over the pixels of all pictures."""
        return sum(self.found.values(), Attention(0.0, 0, 0.0, 0))

    def result(self) -> dict[str, Any]:
        """As JSON values."""
        images = [{"image": path, **attention.result()} for path, attention in self.found.items()]
        return {"model": self.pictures.model, "width": WIDTH, "images": images, "all": self.all.result()}

    def lines(self) -> list[str]:
        """In words, a line a picture and one for all."""
        several = [f"all {len(self.found)}: {self.all.line()}"] if len(self.found) > 1 else []
        return [f"{path}: {attention.line()}" for path, attention in self.found.items()] + several


def write_attention(model: str, images: Sequence[str], out: Path, *, device: str = "auto", overwrite: bool = False) -> AttentionReport:
    """Write OUT/NAME.png for each picture.

    Raises UsageError: a model without boundary attention; DataError: no such model or picture, figures there already.
    """
    path = with_stages(model)
    variant = read_options(path).get("variant")
    having = [name for name, row in VARIANTS.items() if row.refine == "bam"]
    if variant is not None and variant not in having:
        raise UsageError(f"{path}: variant {variant} has no boundary attention; the variant that has: {', '.join(having)}")
    pictures = find_inputs(images, out)
    predictor = load_trained(path, device)
    found: dict[str, Attention] = {}

    def draw(item: Input, image: np.ndarray) -> bytes:
        data, found[str(item.path)] = attention_figure(predictor, image)
        return data

    return AttentionReport(draw_each(predictor, pictures, out, draw, what="attention", overwrite=overwrite), found)


def attention_figure(predictor: Predictor, image: np.ndarray) -> tuple[bytes, Attention]:
    """PNG and numbers of a picture, H x W x 3 uint8."""
    features = predictor.features(image)
    model: Any = predictor.model
    labels = predictor.labels
    maps = features["attention"].cpu().double()
    mask = to_mask(features["logits"][0])
    count, height, width = maps.shape[1:]

    def enlarged(part: Tensor, size: tuple[int, int] | None = None) -> np.ndarray:
        values: np.ndarray = model.resize(part, features["logits"], size)[0, 0].numpy()
        return values

    mean = enlarged(maps.mean(1, keepdim=True))
    distance = transition_distance(mask, labels.ignore)
    outlines = np.zeros(mask.shape, bool) if distance is None else distance <= max(1, max(mask.shape) // 500)
    found = compare(mean, distance)
    chosen = maps[0].var((1, 2), correction=0).argsort(descending=True, stable=True)[:CHANNELS].tolist()
    single = [(index, enlarged(maps[:, index : index + 1], shown_size(*mask.shape))) for index in chosen]
    top = [
        Panel(image, "picture"),
        Panel(colourize(mask, labels), "segmentation"),
        Panel(mean, "attention, mean over channels", f"{value_range(mean)} ({count} channels, {height} x {width} points)"),
        Panel(painted(in_colours(mean), outlines), "the same with the segmentation's outlines"),
    ]
    below = [Panel(values, f"channel {index}", value_range(values)) for index, values in single]
    caption = (
        "Boundary attention A = 1 - sigmoid(P') (Eq. 3), enlarged bilinearly; each map in its own colours, from the least value (dark "
        f"blue) to the greatest (yellow). Second row: the channels that vary most over this picture. Mean attention: {found.line()}."
    )
    return panel_grid([top, below], caption, class_legend([mask], labels)), found


def compare(attention: np.ndarray, distance: np.ndarray | None, width: int = WIDTH) -> Attention:
    """Sums over an H x W map where `distance` (`transition_distance` of the predicted mask) is at most `width`, and over the rest."""
    near = np.zeros(attention.shape, bool) if distance is None else distance <= width
    return Attention(float(attention[near].sum()), int(near.sum()), float(attention[~near].sum()), int((~near).sum()))


def painted(picture: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    """H x W x 3 uint8 with white where `outlines`."""
    out = picture.copy()
    out[outlines] = 255
    return out
