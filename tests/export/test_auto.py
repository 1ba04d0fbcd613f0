"""`--runtime auto`: what is left to choose from, what is known of it, what a job is begun with, when others are tried."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seenet.core import processor
from seenet.core.errors import DataError, UsageError
from seenet.core.files import sha256
from seenet.export import auto, bundle_cache
from seenet.export.auto import PLAIN, Choice, Chosen, open_chosen, typical
from seenet.export.fastest import Speeds
from seenet.prediction.inputs import Input
from tests.export.choosing import BF16, ONNX, OPENVINO, OPTIONS, WAYS, known
from tests.prediction.bundles import write_red

CAMVID, CAMVID_SECONDS = (360, 480), 0.45
"""About what the bundled model takes for one on two threads of AVX2."""


def ask(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, str, list[Any] | None]:
    """What is begun with, why, and which ways are left to be tried (None: that is settled)."""
    monkeypatch.setattr(auto, "open_way", lambda path, way, *_, **__: way)
    chosen = open_chosen("model.safetensors", ["pictures"], Path("out"), **options)
    assert chosen.predictor == (chosen.choice.runtime, chosen.choice.precision)
    speeds = chosen._speeds
    untried = None if speeds is None else [way for way in chosen._left if way != chosen.predictor and way not in speeds.known]
    return chosen.predictor, chosen.choice.why, untried


def test_what_is_left_is_there_to_be_tried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch)[::2] == (PLAIN, [ONNX, OPENVINO])
    monkeypatch.setattr(processor, "has_bf16", lambda: True)
    assert ask(monkeypatch)[::2] == (PLAIN, [ONNX, OPENVINO, BF16, ("openvino", "bf16")])
    assert ask(monkeypatch, runtime="openvino")[::2] == (OPENVINO, [("openvino", "bf16")])
    assert ask(monkeypatch, precision="bf16")[::2] == (BF16, [("openvino", "bf16")])
    assert ask(monkeypatch, scales=(1.0, 2.0))[::2] == (PLAIN, [BF16])
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ask(monkeypatch)[::2] == (PLAIN, None)


def test_what_is_asked_for_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"runtime": "eager", "precision": "fp32"}, {"runtime": "onnx"}, {"runtime": "openvino", "precision": "fp32"}):
        assert ask(monkeypatch, **options) == ((options["runtime"], "fp32"), "asked for", None)


def test_without_the_extra_it_is_plain_fp32(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "find_spec", lambda name: None if name == "onnxruntime" else object())
    why = "nothing else is available here: onnxruntime is not installed: pip install 'seenet[export]'"
    assert ask(monkeypatch) == (PLAIN, why, None)
    with pytest.raises(UsageError, match=r"onnxruntime is not installed: .*; available here: eager fp32$"):
        ask(monkeypatch, runtime="onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16"}, "has no bf16; available here: eager fp32, onnx fp32, openvino fp32"),
        ({"runtime": "onnx", "precision": "bf16"}, "there is no such pair; available here: eager fp32"),
        ({"runtime": "openvino", "scales": (0.5,)}, "exported models take scale 1 alone; available here: eager fp32"),
        ({"runtime": "onnx", "factory": "a:b"}, "--factory is not exported"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(folder: Path, options: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        ask(monkeypatch, **options)
    assert caught.value.exit_code == 2
    assert not Path("out").exists()


def test_what_is_known_is_taken_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = True
    monkeypatch.setattr(bundle_cache, "present", lambda model, kind: present)
    known({PLAIN: 1.0, ONNX: 1.5, OPENVINO: "no OpenVINO here"})
    assert ask(monkeypatch) == (ONNX, "1.50 times as fast as plain fp32 where it was tried", None)
    # Whatever the count.
    for path in list(Path("pictures").iterdir())[1:]:
        path.unlink()
    assert ask(monkeypatch)[::2] == (ONNX, None)
    # Begun with what is known of some, others can be tried yet.
    known({PLAIN: 1.0, OPENVINO: 1.2})
    assert ask(monkeypatch)[::2] == (OPENVINO, [ONNX])
    known({PLAIN: 1.0, ONNX: 1.04, OPENVINO: 0.8})
    assert ask(monkeypatch)[::2] == (PLAIN, None)
    known({PLAIN: 1.0, ONNX: 1.5, OPENVINO: 1.2})
    present = False
    assert ask(monkeypatch)[::2] == (PLAIN, [ONNX, OPENVINO])


def test_a_folder_goes_on_with_what_was_chosen_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = True
    monkeypatch.setattr(bundle_cache, "present", lambda model, kind: present)
    entry = {"input": "", "model": sha256(Path("model.safetensors")), "settings": "", "outputs": {}}
    Path("out").mkdir()

    def begun(**more: str) -> None:
        # Those before the choice are plain, whatever they are called.
        entries = {"a": entry, "b": {**entry, **more}, "c": entry}
        Path("out/manifest.json").write_text(json.dumps(entries))

    for runtime, expected in (("onnxruntime 1.23.0", ONNX), ("openvino 2026.1", OPENVINO)):
        begun(runtime=runtime, precision="fp32")
        assert ask(monkeypatch) == (expected, "out was begun with it", None)
    # What a bundle would have to be made for again is weighed anew.
    present = False
    assert ask(monkeypatch)[::2] == (PLAIN, [ONNX, OPENVINO])
    present = True
    # Another model's outputs say nothing of this one; what is not on this machine cannot go on.
    begun(runtime="onnxruntime 1.23.0", model="0")
    assert ask(monkeypatch)[::2] == (PLAIN, [ONNX, OPENVINO])
    begun(runtime="eager", precision="bf16")
    assert ask(monkeypatch)[::2] == (PLAIN, [ONNX, OPENVINO])
    # Few plain ones are no decision for many more.
    begun()
    assert ask(monkeypatch)[::2] == (PLAIN, [ONNX, OPENVINO])


def test_what_is_accepted_is_what_may_be_chosen() -> None:
    predictor: Any = SimpleNamespace(settings={"runtime": "onnxruntime 1.23.0"})
    made = [PLAIN, ("onnxruntime 1.23.0", "fp32"), ("onnxruntime 1.22.0", "fp32"), BF16]
    for asked, accepted in (
        (("auto", "auto"), [True, True, True, True]),
        (("auto", "fp32"), [True, True, True, False]),
        (("onnx", "auto"), [False, True, False, False]),
        (("onnx", "fp32"), [False, True, False, False]),
    ):
        chosen = Chosen(predictor, Choice("onnx", "fp32", ""), asked)
        assert [chosen.accepts(way) for way in made] == accepted, asked


def test_an_exported_model_has_its_runtime(folder: Path) -> None:
    write_red(Path("red.onnx"))
    chosen = open_chosen("red.onnx", ["pictures"], Path("out"))
    assert (chosen.choice.runtime, chosen.choice.precision) == ONNX
    assert chosen.predictor.settings["runtime"].startswith("onnxruntime ")
    with pytest.raises(UsageError, match="exported for onnx"):
        open_chosen("red.onnx", ["pictures"], Path("out"), runtime="openvino")
    with pytest.raises(UsageError, match="runs in fp32"):
        open_chosen("red.onnx", ["pictures"], Path("out"), precision="bf16")


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
        monkeypatch.setattr(bundle_cache, "present", lambda *_: bool(tried))
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
        assert choice.forecast["cost"] >= sum(bundle_cache.SECONDS.values()) > choice.forecast["saving"] / auto.WORTH
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
