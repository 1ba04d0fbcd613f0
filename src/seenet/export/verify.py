"""Verify that a bundle answers as the trained model does, on real pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from seenet.core.errors import CheckError
from seenet.data.split import Split
from seenet.evaluation.evaluator import evaluate
from seenet.prediction.bundles.bundle import BundlePredictor
from seenet.prediction.predictor import Predictor
from seenet.prediction.result import to_mask

ODD_SIZES = (
    (1, 1, 1),
    (2, 1, 37),
    (3, 5, 3),
    (4, 33, 65),
    (2, 97, 130),
    (1, 224, 160),
)
"""Batch, height and width that the pictures are also resized to: odd, not square, down to 1x1."""


ROUNDING = 1e-6
"""Allowed difference of float32 scores, however small they are."""


@dataclass(frozen=True)
class Bars:
    """Limits that must hold, as fractions; None: not checked.

    `score` is relative to the model's largest absolute score, row by row.
    """

    score: float | None
    agreement: float
    miou_drop: float | None = None
    miou_ratio: float | None = None


BARS = {
    "fp32": Bars(score=1e-3, agreement=0.9999, miou_drop=0.0002),
    "fp16": Bars(score=None, agreement=0.99, miou_drop=0.001),
    "int8": Bars(score=None, agreement=0.9, miou_ratio=0.99),
}
"""Limits by precision of the bundle. For fp16 and int8 the mIoU is the promise; agreement refuses
broken bundles.
"""


@dataclass
class Verification:
    """A row for each size that was run, and the mIoU of both if labels were given."""

    bars: Bars
    rows: list[dict[str, Any]] = field(default_factory=list)
    miou: dict[str, Any] | None = None

    @property
    def agreement(self) -> float:
        """Return the share of all pixels that have the same class."""
        agreeing, pixels = (sum(row[key] for row in self.rows) for key in ("agreeing", "pixels"))
        return float(agreeing / pixels)

    @property
    def difference(self) -> float:
        """Return the largest difference of a score."""
        return float(max(row["difference"] for row in self.rows))

    def failures(self) -> list[str]:
        """Return a sentence for each limit that does not hold."""
        failures, bars = [], self.bars
        for row in self.rows:
            where = f"{row['batch']} x {row['height']} x {row['width']}"
            if not row["masks_are_argmax"]:
                failures.append(f"at {where} its class map is not the argmax of its scores")
            if (
                bars.score is not None
                and not row["difference"] <= bars.score * row["largest"] + ROUNDING
            ):
                failures.append(
                    f"at {where} a score differs by {row['difference']:.2g} of "
                    f"{row['largest']:.3g}, allowed is {bars.score:g} of it"
                )
        if not self.agreement >= bars.agreement:
            failures.append(
                f"{100 * self.agreement:.3f} % of the pixels have the same class, expected "
                f"{100 * bars.agreement:g} %"
            )
        if self.miou is not None:
            model, bundle = self.miou["model"], self.miou["bundle"]
            if bars.miou_drop is not None and not abs(bundle - model) <= bars.miou_drop:
                failures.append(
                    f"mIoU {100 * bundle:.3f} instead of {100 * model:.3f} %, allowed are "
                    f"{100 * bars.miou_drop:g} points"
                )
            if bars.miou_ratio is not None and not bundle >= bars.miou_ratio * model:
                failures.append(
                    f"mIoU {100 * bundle:.2f} %, expected {100 * bars.miou_ratio:g} % of "
                    f"{100 * model:.2f} %"
                )
        return failures

    def check(self) -> None:
        """Raise a CheckError that lists the limits that do not hold."""
        if failures := self.failures():
            raise CheckError(
                "the exported model does not answer as the trained one: "
                f"{'; '.join(failures[:4])}; nothing was written"
            )

    def result(self) -> dict[str, Any]:
        """Return the verification as JSON values."""
        return {
            "largest_score_difference": self.difference,
            "argmax_agreement": self.agreement,
            "miou": self.miou,
            "bars": {key: value for key, value in vars(self.bars).items() if value is not None},
            "rows": self.rows,
        }


def verify(
    model: Predictor,
    bundle: BundlePredictor,
    pictures: Sequence[np.ndarray],
    split: Split | None = None,
) -> Verification:
    """Run both on real pictures and compare their scores and classes.

    Args:
        model: Predictor of the trained model.
        bundle: Predictor of the bundle.
        pictures: H x W x C uint8; compared as they are, then resized to `ODD_SIZES` in batches.
        split: Labelled data to compare the mIoU on.
    """
    verification = Verification(BARS[bundle.card.precision])
    verification.rows += [_compare(model, bundle, [picture]) for picture in pictures]
    for batch, height, width in ODD_SIZES:
        chosen = [pictures[place % len(pictures)] for place in range(batch)]
        resized = [_resized(picture, height, width) for picture in chosen]
        verification.rows.append(_compare(model, bundle, resized))
    if split is not None:
        one, other = (
            evaluate(predictor, split, what=f"{name} on {split.name}")
            for predictor, name in ((model, "model"), (bundle, "bundle"))
        )
        if one.miou is None or other.miou is None:
            raise CheckError(
                f"{split.name}: no pixel is scored, so that there is no mIoU to compare; give "
                "another --split"
            )
        verification.miou = {
            "model": one.miou,
            "bundle": other.miou,
            "data": split.name,
            "images": len(split),
        }
    return verification


def _compare(
    model: Predictor, bundle: BundlePredictor, pictures: list[np.ndarray]
) -> dict[str, Any]:
    """Run a batch through the bundle, and its pictures one by one through the model."""
    scores, masks = bundle.run(np.stack(pictures))
    expected = np.stack([np.asarray(model.scores(picture)) for picture in pictures])
    expected_masks = np.stack([to_mask(one) for one in expected])
    batch, height, width = expected_masks.shape
    same_shape = scores.shape == expected.shape
    # NaN counts as the largest difference.
    difference = (
        np.abs(np.nan_to_num(scores, nan=np.inf) - expected).max() if same_shape else np.inf
    )
    return {
        "batch": batch,
        "height": height,
        "width": width,
        "pixels": expected_masks.size,
        "difference": float(difference),
        "largest": float(np.abs(expected).max()),
        "agreeing": int((masks == expected_masks).sum()),
        "masks_are_argmax": same_shape and bool((masks == scores.argmax(1)).all()),
    }


def _resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    # Channel by channel, since Pillow takes no other number of them.
    bands = [
        Image.fromarray(band).resize((width, height), Image.Resampling.BILINEAR)
        for band in np.moveaxis(picture, 2, 0)
    ]
    return np.stack([np.asarray(band) for band in bands], 2)
