"""Which verifications pass, and which fail."""

from typing import Any

import pytest

from seenet.core.errors import CheckError
from seenet.export.verify import BARS, Verification


def row(**changes: Any) -> dict[str, Any]:
    sizes = {"batch": 1, "height": 100, "width": 100, "pixels": 10_000, "agreeing": 10_000}
    scores = {"difference": 1e-6, "largest": 8.0, "masks_are_argmax": True}
    return {**sizes, **scores, **changes}


def miou(model: float, bundle: float) -> dict[str, Any]:
    return {"model": model, "bundle": bundle, "data": "x", "images": 1}


@pytest.mark.parametrize(
    ("precision", "changes", "scores", "failure"),
    [
        ("fp32", {}, None, None),
        ("fp32", {"agreeing": 9_999}, None, None),
        ("fp32", {"agreeing": 9_998}, None, "99.980 % of the pixels"),
        ("fp32", {"difference": 0.0079}, None, None),
        ("fp32", {"difference": 0.0081}, None, "a score differs"),
        ("fp32", {"difference": float("inf")}, None, "a score differs"),
        ("fp32", {"difference": float("nan")}, None, "a score differs"),
        ("fp32", {"masks_are_argmax": False}, None, "not the argmax"),
        ("fp32", {}, miou(0.7, 0.6998), None),
        ("fp32", {}, miou(0.7, 0.69979), "mIoU 69.979 instead of 70.000"),
        ("fp32", {}, miou(0.7, 0.70021), "mIoU"),
        ("fp16", {"difference": 0.1, "agreeing": 9_950}, miou(0.7, 0.6991), None),
        ("fp16", {}, miou(0.7, 0.6989), "mIoU"),
        ("fp16", {"agreeing": 9_800}, None, "98.000 % of the pixels"),
        ("int8", {"agreeing": 9_300}, miou(0.7, 0.6931), None),
        ("int8", {}, miou(0.7, 0.6929), "expected 99 % of 70.00"),
        ("int8", {"agreeing": 8_000}, miou(0.7, 0.7), "80.000 % of the pixels"),
    ],
)
def test_bars(
    precision: str, changes: dict[str, Any], scores: dict[str, Any] | None, failure: str | None
) -> None:
    found = Verification(BARS[precision], [row(**changes)], scores)
    if failure is None:
        found.check()
    else:
        with pytest.raises(CheckError, match=failure):
            found.check()


def test_every_size_is_held_to_the_bar_of_its_own_scores() -> None:
    found = Verification(
        BARS["fp32"],
        [row(), row(height=1, width=1, pixels=1, agreeing=1, largest=2.0, difference=0.0041)],
    )
    with pytest.raises(CheckError, match="at 1 x 1 x 1 a score differs"):
        found.check()
