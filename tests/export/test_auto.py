"""`--runtime auto`: what a job begins with, which backends it tries, and when."""

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
from seenet.export import auto, backends, bundle_cache
from seenet.export.auto import Choice, Chosen, open_chosen, typical
from seenet.export.backends import PLAIN
from seenet.export.fastest import Speeds
from seenet.prediction.pictures import Input
from tests.export.choosing import BACKENDS, BF16, ONNX, OPENVINO, OPENVINO_BF16, OPTIONS, known
from tests.prediction.bundles.red import write_red

CAMVID, CAMVID_SECONDS = (360, 480), 0.45
"""Size of a frame, and about what the bundled model takes for it on two threads of AVX2."""

Begun = tuple[Any, list[Any] | None]


def begin(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Begun, str]:
    """What a job begins with, and which backends may be tried (None: the choice is final); why."""
    monkeypatch.setattr(auto, "open_backend", lambda path, backend, *_, **__: backend)
    chosen = open_chosen("model.safetensors", ["pictures"], Path("out"), **options)
    current, speeds = (chosen.choice.runtime, chosen.choice.precision), chosen._speeds
    assert chosen.predictor == current
    untried = None
    if speeds is not None:
        untried = [one for one in chosen._allowed if one != current and one not in speeds.known]
    return (current, untried), chosen.choice.why


@pytest.mark.parametrize(
    ("options", "bf16", "begun"),
    [
        ({}, False, (PLAIN, [ONNX, OPENVINO])),
        ({}, True, (PLAIN, [ONNX, OPENVINO, BF16, OPENVINO_BF16])),
        ({"runtime": "openvino"}, True, (OPENVINO, [OPENVINO_BF16])),
        ({"precision": "bf16"}, True, (BF16, [OPENVINO_BF16])),
        ({"scales": (1.0, 2.0)}, True, (PLAIN, [BF16])),
        ({"runtime": "eager", "precision": "fp32"}, True, (PLAIN, None)),
        ({"runtime": "onnx"}, True, (ONNX, None)),
        ({"runtime": "openvino"}, False, (OPENVINO, None)),
    ],
)
def test_what_is_asked_for_is_taken_and_the_rest_is_tried(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: Any, bf16: bool, begun: Begun
) -> None:
    monkeypatch.setattr(processor, "has_bf16", lambda: bf16)
    assert begin(monkeypatch, **options)[0] == begun


def test_several_processes_try_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert begin(monkeypatch)[0] == (PLAIN, None)


def test_without_the_extra_it_is_plain_fp32(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        backends, "find_spec", lambda name: None if name == "onnxruntime" else object()
    )
    begun, why = begin(monkeypatch)
    assert begun == (PLAIN, None)
    assert "onnxruntime is not installed: pip install 'seenet[export]'" in why
    with pytest.raises(UsageError, match=r"onnxruntime .*; available here: eager fp32$"):
        begin(monkeypatch, runtime="onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16"}, "no bf16; available here: eager fp32, onnx fp32, openvino fp32"),
        ({"runtime": "onnx", "precision": "bf16"}, "no such pair; available here: eager fp32"),
        ({"runtime": "openvino", "scales": (0.5,)}, "scale 1 alone; available here: eager fp32"),
        ({"runtime": "onnx", "factory": "a:b"}, "--factory is not exported"),
    ],
)
def test_a_backend_that_is_missing_is_an_error_that_lists_the_others(
    folder: Path, options: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=message):
        begin(monkeypatch, **options)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("speeds", "present", "begun"),
    [
        ({PLAIN: 1.0, ONNX: 1.5, OPENVINO: "not here"}, True, (ONNX, None)),
        # Of some nothing is known: the job begins with the fastest of the others.
        ({PLAIN: 1.0, OPENVINO: 1.2}, True, (OPENVINO, [ONNX])),
        ({PLAIN: 1.0, ONNX: 1.04, OPENVINO: 0.8}, True, (PLAIN, None)),
        # The bundle is gone.
        ({PLAIN: 1.0, ONNX: 1.5, OPENVINO: 1.2}, False, (PLAIN, [ONNX, OPENVINO])),
    ],
)
def test_known_speeds_are_used_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, speeds: Any, present: bool, begun: Begun
) -> None:
    monkeypatch.setattr(bundle_cache, "present", lambda *_: present)
    known(speeds)
    assert begin(monkeypatch)[0] == begun


ANEW = (PLAIN, [ONNX, OPENVINO])


@pytest.mark.parametrize(
    ("entry", "present", "begun"),
    [
        ({"runtime": "onnxruntime 1.23.0", "precision": "fp32"}, True, (ONNX, None)),
        ({"runtime": "openvino 2026.1", "precision": "fp32"}, True, (OPENVINO, None)),
        # It would have to be exported again.
        ({"runtime": "openvino 2026.1", "precision": "fp32"}, False, ANEW),
        # Another model, a backend that is not here, and a few plain ones decide nothing.
        ({"runtime": "onnxruntime 1.23.0", "model": "0"}, True, ANEW),
        ({"runtime": "eager", "precision": "bf16"}, True, ANEW),
        ({}, True, ANEW),
    ],
)
def test_a_folder_goes_on_with_the_backend_that_was_chosen_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, entry: Any, present: bool, begun: Begun
) -> None:
    monkeypatch.setattr(bundle_cache, "present", lambda *_: present)
    plain = {"input": "", "model": sha256(Path("model.safetensors")), "settings": "", "outputs": {}}
    Path("out").mkdir()
    # Those before the choice are plain, whatever they are called.
    entries = {"a": plain, "b": {**plain, **entry}, "c": plain}
    Path("out/manifest.json").write_text(json.dumps(entries))
    assert begin(monkeypatch)[0] == begun


@pytest.mark.parametrize(
    ("asked", "accepted"),
    [
        (("auto", "auto"), [True, True, True, True]),
        (("auto", "fp32"), [True, True, True, False]),
        (("onnx", "auto"), [False, True, False, False]),
        (("onnx", "fp32"), [False, True, False, False]),
    ],
)
def test_outputs_of_backends_that_may_be_chosen_are_kept(
    asked: tuple[str, str], accepted: list[bool]
) -> None:
    predictor: Any = SimpleNamespace(settings={"runtime": "onnxruntime 1.23.0"})
    made = [PLAIN, ("onnxruntime 1.23.0", "fp32"), ("onnxruntime 1.22.0", "fp32"), BF16]
    chosen = Chosen(predictor, Choice("onnx", "fp32", ""), asked)
    assert [chosen.accepts(backend) for backend in made] == accepted


def test_an_exported_model_has_its_runtime(folder: Path) -> None:
    write_red(Path("red.onnx"))
    chosen = open_chosen("red.onnx", ["pictures"], Path("out"))
    assert (chosen.choice.runtime, chosen.choice.precision) == ONNX
    for options, message in (
        ({"runtime": "openvino"}, "exported for onnx"),
        ({"precision": "bf16"}, "runs in fp32"),
    ):
        with pytest.raises(UsageError, match=message):
            open_chosen("red.onnx", ["pictures"], Path("out"), **options)


@pytest.mark.parametrize(
    ("sizes", "names"),
    [
        ([], ""),
        ([5], "0"),
        ([5, 7], "1 0"),
        ([1, 1, 1, 10, 9, 9], "5 4 3"),
        # Neither a huge picture nor many small ones are typical.
        ([6_000, *[50] * 7, *[1_000] * 20], "20 19 21"),
        # Pictures that cannot be read, or are read by windows (negative), are left out.
        ([0, -90, 8], "2"),
    ],
)
def test_typical_pictures_stand_for_the_pixels(sizes: list[int], names: str) -> None:
    pixels = {
        Input(Path(str(place)), str(place), windows=size < 0): abs(size)
        for place, size in enumerate(sizes)
    }
    assert " ".join(item.name for item in typical(pixels)) == names


Decision = tuple[Choice, list[Any] | None, list[Any]]
PACE = CAMVID_SECONDS / (CAMVID[0] * CAMVID[1])


@pytest.fixture
def decide(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Decision]:
    """Follow a job of pictures of these sizes: the choice, what was tried, and with which limits.

    `found` are the speeds (or failures) that a trial finds, `failed` what failed before.
    """

    def follow(
        sizes: Sequence[tuple[int, int]],
        allowed: Sequence[Any] = BACKENDS,
        found: Any = None,
        failed: Any = (),
    ) -> Decision:
        items = [Input(Path(f"{place}.png"), str(place)) for place in range(len(sizes))]
        pixels = {item: height * width for item, (height, width) in zip(items, sizes, strict=True)}
        tried: list[Any] = []

        def attempt(
            speeds: Speeds, backends: Any, opened: dict[Any, Any], pictures: Any, **limits: float
        ) -> None:
            tried.extend([backends, len(pictures), limits])
            if isinstance(found, Exception):
                raise found
            for backend, speed in (found or {}).items():
                if isinstance(speed, str):
                    speeds.passing[backend] = {"failed": speed}
                else:
                    speeds.known[backend] = {"speed": speed, "seconds": 1 / speed, "equal": 1.0}
                    opened[backend] = backend

        monkeypatch.setattr(Speeds, "attempt", attempt)
        monkeypatch.setattr(bundle_cache, "present", lambda *_: bool(tried))
        speeds = Speeds(Path("model.safetensors"), 1, "cpu", OPTIONS)
        speeds.known |= {backend: {"failed": "for good"} for backend in failed}
        begun = Choice(*allowed[0], "")
        chosen = Chosen(allowed[0], begun, ("auto", "auto"), allowed, speeds, pixels)
        for count, item in enumerate(chosen.begin(items)):
            chosen.predictor_for(item)
            # The first picture takes longer.
            chosen.done(item, PACE * pixels[item] + 5 * (count == 0))
        assert chosen.predictor == (chosen.choice.runtime, chosen.choice.precision)
        return chosen.choice, tried[0] if tried else None, tried[1:]

    return follow


@pytest.mark.parametrize(
    "sizes",
    [
        # Three large pictures and many small ones once made a trial take 106 s of a job of 40.
        [(2000, 3000)] * 3 + [(48, 64)] * 20,
        [(48, 64)] * 20,
        [CAMVID] * 20,
        [CAMVID] * 350,
        [(2000, 3000)] * 4,
    ],
)
def test_a_trial_that_costs_more_than_it_saves_is_not_made(
    decide: Callable[..., Decision], sizes: list[tuple[int, int]]
) -> None:
    choice, tried, _ = decide(sizes)
    assert (choice.runtime, choice.precision, tried) == (*PLAIN, None)
    pixels = sum(height * width for height, width in sizes) - 3 * max(sizes)[0] * max(sizes)[1]
    forecast = choice.forecast
    assert forecast["left"] == pytest.approx(PACE * pixels, abs=0.06)
    exports = sum(bundle_cache.SECONDS.values())
    assert forecast["cost"] >= exports > forecast["saving"] / auto.WORTH
    assert json.loads(json.dumps(asdict(choice)))["forecast"] == forecast


def test_a_trial_that_saves_more_than_it_costs_is_made(decide: Callable[..., Decision]) -> None:
    choice, tried, (pictures, limits) = decide(
        [(2000, 3000)] * 3 + [CAMVID] * 5000, found={PLAIN: 1.0, ONNX: 1.5}
    )
    assert (choice.runtime, choice.precision, tried, pictures) == (*ONNX, [ONNX, OPENVINO], 3)
    assert "1.50 times as fast" in choice.why
    assert [one["speed"] for one in choice.candidates] == [1.0, 1.5]
    # Whatever was forecast, a trial is limited by what it may save.
    saving = choice.forecast["saving"]
    assert saving == pytest.approx(choice.forecast["left"] * (1 - 1 / auto.SPEEDUP), abs=0.1)
    assert choice.forecast["cost"] * auto.WORTH <= saving
    assert limits["rounds"] * auto.WORTH <= saving and limits["exports"] < saving


def test_failures_are_reported(decide: Callable[..., Decision]) -> None:
    found = {PLAIN: 1.0, ONNX: "no room", OPENVINO: "no room"}
    choice, tried, _ = decide([CAMVID] * 5000, found=found)
    assert (choice.runtime, tried) == ("eager", [ONNX, OPENVINO])
    assert choice.why.endswith("; onnx fp32, openvino fp32 failed for now: no room")
    assert [one.get("failed") for one in choice.candidates] == [None, "no room", "no room"]


@pytest.mark.parametrize(
    ("count", "allowed", "found", "failed", "chosen", "tried"),
    [
        # What failed for good is not tried again, also where plain fp32 was not allowed.
        (5000, BACKENDS, None, [ONNX], PLAIN, [OPENVINO]),
        (5000, [OPENVINO, OPENVINO_BF16], None, [OPENVINO_BF16], OPENVINO, None),
        # What needs no export is tried sooner.
        (500, [*BACKENDS, BF16], {PLAIN: 1.0, BF16: 2.0}, [], BF16, [BF16]),
        (30, [*BACKENDS, BF16], None, [], PLAIN, None),
        # A trial that fails leaves the job as it was.
        (5000, BACKENDS, MemoryError(), [], PLAIN, [ONNX, OPENVINO]),
        (5000, BACKENDS, DataError("no plain fp32"), [], PLAIN, [ONNX, OPENVINO]),
        (5000, BACKENDS, OSError(28, "No space left on device"), [], PLAIN, [ONNX, OPENVINO]),
    ],
)
def test_what_is_tried_and_chosen(
    decide: Callable[..., Decision],
    count: int,
    allowed: list[Any],
    found: Any,
    failed: list[Any],
    chosen: Any,
    tried: list[Any] | None,
) -> None:
    choice, *trial = decide([CAMVID] * count, allowed, found, failed)
    assert ((choice.runtime, choice.precision), trial[0]) == (chosen, tried)
