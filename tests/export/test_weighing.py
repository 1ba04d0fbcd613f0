"""When others are tried: what that costs beside what is left of the job."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from seenet.core.errors import DataError
from seenet.export import auto, bundles
from seenet.export.auto import PLAIN, Choice, Chosen, typical
from seenet.export.fastest import Speeds
from seenet.prediction.inputs import Input
from tests.export.choosing import BF16, ONNX, OPENVINO, OPTIONS, WAYS

CAMVID, CAMVID_SECONDS = (360, 480), 0.45
"""About what the bundled model takes for one on two threads of AVX2."""


def test_typical_pictures_stand_for_the_pixels() -> None:
    def names(*sizes: int) -> list[str]:
        items = [Input(Path(str(place)), str(place), windows=size < 0) for place, size in enumerate(sizes)]
        return [item.name for item in typical({item: abs(size) for item, size in zip(items, sizes, strict=True)})]

    assert names() == []
    assert names(5) == ["0"]
    assert names(5, 7) == ["1", "0"]
    assert names(1, 1, 1, 10, 9, 9) == ["5", "4", "3"]
    assert set(names(6_000_000, 6_000_000, 6_000_000, *[3072] * 20)) == {"0", "1", "2"}
    # One that is huge is not typical of thousands; neither what cannot be read nor what is read by windows is.
    assert "0" not in names(6_000_000, *[172_800] * 100)
    assert names(0, -90, 8) == ["2"]


Decision = tuple[Choice, list[Any] | None, list[Any]]


@pytest.fixture
def decide(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Decision]:
    """Follow a job of pictures of these sizes at so many seconds a pixel: the choice, what was tried, and on how many pictures."""

    def follow(sizes: Sequence[tuple[int, int]], pace: float, left: Sequence[Any] = WAYS, found: Any = None, failed: Any = ()) -> Decision:
        items = [Input(Path(f"{place}.png"), str(place)) for place in range(len(sizes))]
        pixels = {item: height * width for item, (height, width) in zip(items, sizes, strict=True)}
        tried: list[Any] = []

        def attempt(speeds: Speeds, ways: Any, opened: dict[Any, Any], pictures: Any, **limits: float) -> None:
            tried.extend([ways, len(pictures), limits])
            if isinstance(found, Exception):
                raise found
            for way, speed in (found or {}).items():
                if isinstance(speed, str):
                    speeds.passing[way] = {"failed": speed}
                    continue
                speeds.known[way] = {"speed": speed, "seconds": 1 / speed, "equal": 1.0}
                opened[way] = way

        monkeypatch.setattr(Speeds, "attempt", attempt)
        monkeypatch.setattr(bundles, "present", lambda *_: bool(tried))
        speeds = Speeds(Path("model.safetensors"), 1, "cpu", OPTIONS)
        speeds.known |= {way: {"failed": "for good"} for way in failed}
        chosen = Chosen(left[0], Choice(*left[0], ""), ("auto", "auto"), left, speeds, pixels)
        for count, item in enumerate(chosen.begin(items)):
            chosen.predictor_for(item)
            height, width = sizes[int(item.name)]
            # The first picture takes longer.
            chosen.done(item, pace * height * width + 5 * (count == 0))
        assert chosen.predictor == (chosen.choice.runtime, chosen.choice.precision)
        return chosen.choice, tried[0] if tried else None, tried[1:]

    return follow


PACE = CAMVID_SECONDS / (CAMVID[0] * CAMVID[1])


def test_what_costs_more_than_it_saves_is_not_tried(decide: Callable[..., Decision]) -> None:
    """Three large pictures and many small ones once made a trial take 106 s of a job of 40."""
    for sizes in ([(2000, 3000)] * 3 + [(48, 64)] * 20, [(48, 64)] * 20, [CAMVID] * 20, [CAMVID] * 350, [(2000, 3000)] * 4):
        choice, tried, _ = decide(sizes, PACE)
        assert (choice.runtime, choice.precision, tried) == (*PLAIN, None)
        left = PACE * (sum(height * width for height, width in sizes) - 3 * max(sizes)[0] * max(sizes)[1])
        assert choice.forecast["left"] == pytest.approx(left, abs=0.06)
        assert choice.forecast["cost"] >= sum(bundles.SECONDS.values()) > choice.forecast["saving"] / auto.WORTH
        assert f"{left:.0f} s are left" in choice.why
        assert json.loads(json.dumps(asdict(choice)))["forecast"] == choice.forecast


def test_what_saves_more_than_it_costs_is_tried(decide: Callable[..., Decision]) -> None:
    choice, tried, (pictures, limits) = decide([(2000, 3000)] * 3 + [CAMVID] * 5000, PACE, found={PLAIN: 1.0, ONNX: 1.5})
    assert (choice.runtime, choice.precision, tried, pictures) == (*ONNX, [ONNX, OPENVINO], 3)
    assert choice.why == "1.50 times as fast as plain fp32 where it was tried"
    assert [one["speed"] for one in choice.candidates] == [1.0, 1.5]
    # What it may take, whatever the forecast was, is bound to what it may save.
    saving = choice.forecast["saving"]
    assert saving == pytest.approx(choice.forecast["left"] * (1 - 1 / auto.SPEEDUP), abs=0.1)
    assert choice.forecast["cost"] * auto.WORTH <= saving
    assert limits["rounds"] * auto.WORTH <= saving and limits["exports"] < saving
    choice, tried, _ = decide([CAMVID] * 5000, PACE, found={PLAIN: 1.0, ONNX: "no room", OPENVINO: "no room"})
    assert (choice.runtime, tried) == ("eager", [ONNX, OPENVINO])
    assert choice.why.endswith("; onnx fp32, openvino fp32 failed for now: no room")
    assert [one.get("failed") for one in choice.candidates] == [None, "no room", "no room"]


def test_what_failed_for_good_is_not_tried_again(decide: Callable[..., Decision]) -> None:
    assert decide([CAMVID] * 5000, PACE, failed=[ONNX])[1] == [OPENVINO]
    # Neither where nothing is known of what was begun with, because it was asked for.
    choice, tried, _ = decide([CAMVID] * 5000, PACE, [OPENVINO, ("openvino", "bf16")], failed=[("openvino", "bf16")])
    assert (choice.runtime, choice.precision, tried) == (*OPENVINO, None)


def test_what_needs_no_export_is_tried_sooner(decide: Callable[..., Decision]) -> None:
    choice, tried, (pictures, _) = decide([CAMVID] * 500, PACE, [*WAYS, BF16], {PLAIN: 1.0, BF16: 2.0})
    assert (choice.precision, tried, pictures) == ("bf16", [BF16], 1)
    assert decide([CAMVID] * 30, PACE, [*WAYS, BF16])[1] is None


@pytest.mark.parametrize("error", [MemoryError(), DataError("no plain fp32"), OSError(28, "No space left on device")])
def test_a_trial_that_fails_leaves_the_job_as_it_was(decide: Callable[..., Decision], error: Exception) -> None:
    choice, tried, _ = decide([CAMVID] * 5000, PACE, found=error)
    assert (choice.runtime, choice.precision, tried) == (*PLAIN, [ONNX, OPENVINO])
