"""Speeds that are measured and remembered, with predictors whose speed and answers are made up."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seenet.core.errors import BusyError, CheckError, DataError, PassingError
from seenet.core.files import cache_folder
from seenet.export import bundle_cache, fastest
from seenet.export.backends import PLAIN
from seenet.export.fastest import Speeds, measured
from seenet.prediction.loading import PredictOptions
from tests.export.choosing import BF16, ONNX, OPENVINO, OPENVINO_BF16
from tests.prediction.doubles import picture, raising

IMAGES = [picture(100, 100, seed) for seed in range(2)]
ALL = [PLAIN, ONNX, OPENVINO, BF16]
CLOCK = SimpleNamespace(now=0.0, perf_counter=lambda: CLOCK.now)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves by what predictors take alone."""
    monkeypatch.setattr(fastest, "time", CLOCK)


class Timed:
    """Predictor that takes some seconds a call, and gives `wrong` pixels another class."""

    def __init__(self, seconds: float, wrong: int = 0) -> None:
        self.seconds, self.wrong, self.calls = seconds, wrong, 0

    def mask(self, image: np.ndarray) -> np.ndarray:
        self.calls += 1
        CLOCK.now += self.seconds
        mask = image[:, :, 0] // 128
        mask.flat[: self.wrong] += 1
        return mask


def failing(error: Exception) -> Any:
    """Predictor that opens and then fails."""
    return SimpleNamespace(mask=raising(error))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model.safetensors").write_bytes(b"a model")
    return tmp_path / "model.safetensors"


def known(model: Path, pixels: float = 10_000, machine: str = "a cpu", **changed: Any) -> Speeds:
    return Speeds(model, pixels, machine, PredictOptions(**changed))


def attempt(
    model: Path, predictors: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[Speeds, list[Any]]:
    """Try predictors, or errors of opening them; return what is known, and which were opened."""
    opened = []

    def open_backend(_: Path, backend: Any, *__: Any, **___: Any) -> Any:
        opened.append(backend)
        if isinstance(predictors[backend], BaseException):
            raise predictors[backend]
        return predictors[backend]

    monkeypatch.setattr(fastest, "open_backend", open_backend)
    reader = SimpleNamespace(of_model=lambda _: lambda path: IMAGES[int(path.stem)])
    monkeypatch.setattr(fastest, "PictureReader", reader)
    speeds, pictures = known(model), [Path("0.png"), Path("1.png")]
    others, begun = [one for one in predictors if one != PLAIN], {PLAIN: predictors[PLAIN]}
    speeds.attempt(others, begun, pictures, seconds=10, rounds=10, exports=10)
    return speeds, opened


def test_the_fastest_that_answers_alike() -> None:
    failed: dict[Any, Exception] = {}
    predictors = {
        PLAIN: Timed(0.004),
        ONNX: Timed(0.003, wrong=1),
        OPENVINO: Timed(0, wrong=2),
        BF16: Timed(0.002, wrong=10),
        OPENVINO_BF16: Timed(0, wrong=11),
    }
    seconds, equal = measured(predictors, IMAGES, failed, 10)
    assert equal == {PLAIN: 1.0, ONNX: 0.9999, BF16: 0.999}
    assert seconds == pytest.approx({PLAIN: 0.004, ONNX: 0.003, BF16: 0.002})
    assert failed.keys() == {OPENVINO, OPENVINO_BF16}
    assert "gives 99.980 % of the pixels" in str(failed[OPENVINO])


@pytest.mark.parametrize(
    ("slow", "limit", "calls"),
    [
        # Once to compare and three rounds; one that is clearly slower has one round.
        (1.2, 100, (8, 8, 8)),
        (6, 100, (8, 4, 8)),
        # The first round takes 6.4 s.
        (1.2, 7, (6, 6, 6)),
        (1.2, 6, (4, 4, 4)),
        # What takes too long to compare has no round.
        (6, 11, (8, 2, 8)),
    ],
)
def test_timing_ends_early(slow: float, limit: float, calls: tuple[int, ...]) -> None:
    predictors = {PLAIN: Timed(1), ONNX: Timed(slow), BF16: Timed(1)}
    seconds, _ = measured(predictors, IMAGES, {}, limit)
    assert tuple(one.calls for one in predictors.values()) == calls
    assert seconds == pytest.approx({PLAIN: 1, ONNX: slow, BF16: 1})


def test_speeds_are_remembered_for_this_model_machine_and_settings(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    monkeypatch.setattr(bundle_cache, "present", lambda model, kind: False)
    monkeypatch.setattr(bundle_cache, "remove", lambda model, kind: removed.append(kind))
    failure = DataError("no OpenVINO here")
    predictors = {PLAIN: Timed(0.004), BF16: Timed(0.002), ONNX: Timed(0.003), OPENVINO: failure}
    speeds, opened = attempt(model, predictors, monkeypatch)
    # Exports first; bundles that are not the fastest are removed.
    assert (opened, sorted(removed)) == ([ONNX, OPENVINO, BF16], ["onnx", "openvino"])
    candidates = speeds.candidates(ALL)
    assert [one.get("failed") for one in candidates] == [None, None, "no OpenVINO here", None]
    assert [one.get("speed") for one in candidates] == [1.0, pytest.approx(4 / 3, 1e-3), None, 2.0]
    again = known(model)
    assert (again.known, again.best(ALL)) == (speeds.known, BF16)
    # If the bundle of the fastest is gone, nothing is known.
    assert (again.best([PLAIN, ONNX]), again.known) == (None, {})
    for other in (known(model, machine="another"), known(model, flip=True), known(model, 40_000)):
        assert other.known == {}
    model.write_bytes(b"another")
    assert known(model).known == {}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"candidates": [{"runtime": "onnx", "precision": "fp32", "speed": "fast"}]}',
        '{"candidates": [1]}',
    ],
)
def test_a_damaged_file_is_ignored(model: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt(model, {PLAIN: Timed(0.004)}, monkeypatch)
    (file,) = (cache_folder() / "choices").iterdir()
    assert known(model).known and json.loads(file.read_text())["key"]["processor"] == "a cpu"
    file.write_text(text)
    assert known(model).known == {}


@pytest.mark.parametrize(
    ("failure", "temporary"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (MemoryError(), True),
        (RuntimeError("std::bad_alloc"), True),
        (BusyError("held"), True),
        (PassingError("the process that exported it ended with signal 9"), True),
        (failing(RuntimeError("DefaultCPUAllocator: can't allocate memory")), True),
        (DataError("cannot be exported"), False),
        (CheckError("answers otherwise"), False),
        (ImportError("broken"), False),
        (failing(RuntimeError("no such operator")), False),
    ],
)
def test_only_lasting_failures_are_remembered(
    model: Path, failure: Any, temporary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictors = {PLAIN: Timed(0.002), BF16: Timed(0.001), ONNX: failure}
    speeds, _ = attempt(model, predictors, monkeypatch)
    assert speeds.best(ALL) == BF16
    assert speeds.candidates([ONNX])[0]["failed"]
    assert (ONNX in speeds.passing) == (ONNX not in known(model).known) == temporary
    monkeypatch.setattr(bundle_cache, "present", lambda model, kind: True)
    again, _ = attempt(model, {PLAIN: Timed(0.002), ONNX: Timed(0.0005)}, monkeypatch)
    assert again.best(ALL) == ONNX


def test_after_a_failed_export_no_other_is_waited_for(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictors = {PLAIN: Timed(1), ONNX: BusyError("held"), OPENVINO: Timed(1), BF16: Timed(1)}
    speeds, opened = attempt(model, predictors, monkeypatch)
    assert opened == [ONNX, BF16]
    assert [one["failed"] for one in speeds.candidates([ONNX, OPENVINO])] == ["held", "held"]


def test_the_forecast_counts_missing_exports(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds, every = known(model), [BF16, ONNX, OPENVINO]
    eager, missing = speeds.forecast([BF16], 2), speeds.forecast(every, 2)
    monkeypatch.setattr(bundle_cache, "present", lambda model, kind: True)
    exports = missing - speeds.forecast(every, 2)
    assert exports == pytest.approx(sum(bundle_cache.SECONDS.values()))
    assert speeds.forecast([], 0) == 0 < eager < missing - exports < 50
