"""Whether a bundle answers as the trained model does: the model's own predictor beside it, on real pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from seenet.core.errors import CheckError
from seenet.data.split import Split
from seenet.evaluation.evaluator import evaluate
from seenet.prediction.bundle import BundlePredictor
from seenet.prediction.predictor import Predictor
from seenet.prediction.scores import to_mask

ODD = ((1, 1, 1), (2, 1, 37), (3, 5, 3), (4, 33, 65), (2, 97, 130), (1, 224, 160))
"""Batch, height and width of what the pictures are resized to besides: odd, not square, down to one pixel."""


ROUNDING = 1e-6
"""What float32 may differ by, however small the scores are."""


@dataclass(frozen=True)
class Bars:
    """What must hold (shares 0..1; None: not asked). `score` is of the reference's largest absolute score, row by row."""

    score: float | None
    agreement: float
    miou_drop: float | None = None
    miou_ratio: float | None = None


BARS = {
    "fp32": Bars(score=1e-3, agreement=0.9999, miou_drop=0.0002),
    "fp16": Bars(score=None, agreement=0.99, miou_drop=0.001),
    "int8": Bars(score=None, agreement=0.9, miou_ratio=0.99),
}
"""By precision of the bundle. fp32's are the promise; the others' is the mIoU; agreement keeps out what is broken."""


@dataclass
class Verification:
    """A row for each size that was run, and the mIoU of both where labels were given."""

    bars: Bars
    rows: list[dict[str, Any]] = field(default_factory=list)
    miou: dict[str, Any] | None = None

    @property
    def agreement(self) -> float:
        """Return the share of all pixels that get the same class."""
        return float(sum(row["agreeing"] for row in self.rows) / sum(row["pixels"] for row in self.rows))

    @property
    def difference(self) -> float:
        """Return the largest difference of a score."""
        return float(max(row["difference"] for row in self.rows))

    def failures(self) -> list[str]:
        """Say what does not hold; empty where all does."""
        found = []
        for row in self.rows:
            where = f"{row['batch']} x {row['height']} x {row['width']}"
            if not row["masks_are_argmax"]:
                found.append(f"at {where} its class map is not the argmax of its scores")
            if self.bars.score is not None and not row["difference"] <= self.bars.score * row["largest"] + ROUNDING:
                found.append(
                    f"at {where} a score differs by {row['difference']:.2g} of {row['largest']:.3g}, allowed is {self.bars.score:g} of it"
                )
        if not self.agreement >= self.bars.agreement:
            found.append(f"{100 * self.agreement:.3f} % of the pixels get the same class, expected {100 * self.bars.agreement:g} %")
        if self.miou is not None:
            model, bundle = self.miou["model"], self.miou["bundle"]
            if self.bars.miou_drop is not None and not abs(bundle - model) <= self.bars.miou_drop:
                found.append(f"mIoU {100 * bundle:.3f} instead of {100 * model:.3f} %, allowed are {100 * self.bars.miou_drop:g} points")
            if self.bars.miou_ratio is not None and not bundle >= self.bars.miou_ratio * model:
                found.append(f"mIoU {100 * bundle:.2f} %, expected {100 * self.bars.miou_ratio:g} % of {100 * model:.2f} %")
        return found

    def check(self) -> None:
        """Raise a CheckError that lists what does not hold."""
        if found := self.failures():
            raise CheckError(f"the exported model does not answer as the trained one: {'; '.join(found[:4])}; nothing was written")

    def result(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "largest_score_difference": self.difference,
            "argmax_agreement": self.agreement,
            "miou": self.miou,
            "bars": {key: value for key, value in vars(self.bars).items() if value is not None},
            "rows": self.rows,
        }


def verify(model: Predictor, bundle: BundlePredictor, pictures: Sequence[np.ndarray], split: Split | None = None) -> Verification:
    """Run both on each of `pictures` (H x W x C uint8) as it is, then on them resized to `ODD` in batches, then on a split with labels."""
    found = Verification(BARS[bundle.card.precision])
    for picture in pictures:
        found.rows.append(_compare(model, bundle, [picture]))
    for batch, height, width in ODD:
        resized = [_resized(pictures[place % len(pictures)], height, width) for place in range(batch)]
        found.rows.append(_compare(model, bundle, resized))
    if split is not None:
        one, other = (
            evaluate(predictor, split, what=f"{name} on {split.name}") for predictor, name in ((model, "model"), (bundle, "bundle"))
        )
        if one.miou is None or other.miou is None:
            raise CheckError(f"{split.name}: no pixel is scored, so that there is no mIoU to compare; give another --split")
        found.miou = {"model": one.miou, "bundle": other.miou, "data": split.name, "images": len(split)}
    return found


def _compare(model: Predictor, bundle: BundlePredictor, pictures: list[np.ndarray]) -> dict[str, Any]:
    """Run one batch through the bundle, and one by one through the model."""
    found, masks = bundle.run(np.stack(pictures))
    expected = np.stack([np.asarray(model.scores(picture)) for picture in pictures])
    wanted = np.stack([to_mask(scores) for scores in expected])
    batch, height, width = wanted.shape
    # What is not a number is as wrong as can be.
    difference = np.abs(np.nan_to_num(found, nan=np.inf) - expected).max() if found.shape == expected.shape else np.inf
    return {
        "batch": batch, "height": height, "width": width, "pixels": wanted.size, "difference": float(difference),
        "largest": float(np.abs(expected).max()), "agreeing": int((masks == wanted).sum()),
        "masks_are_argmax": found.shape == expected.shape and bool((masks == found.argmax(1)).all()),
    }  # fmt: skip


def _resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    # Channel by channel, whatever their number.
    bands = [Image.fromarray(band).resize((width, height), Image.Resampling.BILINEAR) for band in np.moveaxis(picture, 2, 0)]
    return np.stack([np.asarray(band) for band in bands], 2)
