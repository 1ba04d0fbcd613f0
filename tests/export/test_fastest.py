"""What is measured and remembered of the ways, with predictors whose speed and answers are made up."""

import errno
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seenet.core.errors import BusyError, CheckError, DataError, PassingError
from seenet.core.files import cache_folder
from seenet.export import bundle_cache, fastest
from seenet.export.fastest import PLAIN, Speeds, measured, ticking

ONNX, OPENVINO, BF16 = ("onnx", "fp32"), ("openvino", "fp32"), ("eager", "bf16")
OPTIONS: dict[str, Any] = {"device": "auto", "scales": (1.0,), "flip": False}
IMAGES = [np.random.default_rng(number).integers(0, 256, (100, 100, 3), np.uint8) for number in range(2)]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """That moves by what `net`s take alone."""
    net.now = 0.0  # type: ignore[attr-defined]
    monkeypatch.setattr(fastest, "time", SimpleNamespace(perf_counter=lambda: net.now))  # type: ignore[attr-defined]


def net(seconds: float, wrong: int = 0) -> Any:
    """Takes its time, counts its calls, and gives `wrong` pixels another class."""
    one = SimpleNamespace(calls=0)

    def mask(image: np.ndarray) -> np.ndarray:
        one.calls += 1
        net.now += seconds  # type: ignore[attr-defined]
        found = image[:, :, 0] // 128
        found.flat[:wrong] += 1
        return found

    one.mask = mask
    return one


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model.safetensors").write_bytes(b"a model")
    return tmp_path / "model.safetensors"


def known(model: Path, pixels: float = 10_000, **changed: Any) -> Speeds:
    return Speeds(model, pixels, changed.pop("machine", "a cpu"), {**OPTIONS, **changed})


def attempt(model: Path, nets: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Speeds, list[Any]]:
    """What is known after `nets` were tried, an exception where one does not open; and which were opened for it."""
    opened = []

    def open_way(path: Path, way: Any, pictures: Any, **options: Any) -> Any:
        opened.append(way)
        if isinstance(nets[way], BaseException):
            raise nets[way]
        return nets[way]

    monkeypatch.setattr(fastest, "open_way", open_way)
    speeds = known(model)
    monkeypatch.setattr(fastest, "read_image", lambda path: IMAGES[int(path.stem)])
    pictures = [Path("0.png"), Path("1.png")]
    speeds.attempt([way for way in nets if way != PLAIN], {PLAIN: nets[PLAIN]}, pictures, seconds=10, rounds=10, exports=10)
    return speeds, opened


def test_the_fastest_that_answers_alike() -> None:
    failed: dict[Any, Exception] = {}
    nets = {
        PLAIN: net(0.004), ONNX: net(0.003, wrong=1), OPENVINO: net(0, wrong=2), BF16: net(0.002, wrong=10),
        ("openvino", "bf16"): net(0, wrong=11),
    }  # fmt: skip
    seconds, equal = measured(nets, IMAGES, failed, 10)
    assert list(seconds) == [PLAIN, ONNX, BF16]
    assert equal == {PLAIN: 1.0, ONNX: 0.9999, BF16: 0.999}
    assert seconds == pytest.approx({PLAIN: 0.004, ONNX: 0.003, BF16: 0.002})
    assert {way: str(error) for way, error in failed.items()} == {
        OPENVINO: "gives 99.980 % of the pixels the class of plain fp32, expected 99.99 %",
        ("openvino", "bf16"): "gives 99.890 % of the pixels the class of plain fp32, expected 99.9 %",
    }


@pytest.mark.parametrize(
    ("slow", "limit", "calls"),
    [
        # Once to compare and three rounds; one that is clearly slower has one round.
        (1.2, 100, (8, 8, 8)), (6, 100, (8, 4, 8)),
        # The first round takes 6.4 s.
        (1.2, 7, (6, 6, 6)), (1.2, 6, (4, 4, 4)),
        # What takes too long to compare has no round.
        (6, 11, (8, 2, 8)),
    ],
)  # fmt: skip
def test_timing_ends_early(slow: float, limit: float, calls: tuple[int, ...]) -> None:
    nets = {PLAIN: net(1), ONNX: net(slow), BF16: net(1)}
    seconds, _ = measured(nets, IMAGES, {}, limit)
    assert tuple(one.calls for one in nets.values()) == calls
    assert seconds == pytest.approx({PLAIN: 1, ONNX: slow, BF16: 1})


def test_what_was_found_is_remembered_for_this_model_machine_and_settings(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr(bundle_cache, "present", lambda model, kind: False)
    monkeypatch.setattr(bundle_cache, "remove", lambda model, kind: removed.append(kind))
    nets = {PLAIN: net(0.004), BF16: net(0.002), ONNX: net(0.003), OPENVINO: DataError("no OpenVINO here")}
    speeds, opened = attempt(model, nets, monkeypatch)
    assert opened == [ONNX, OPENVINO, BF16]
    assert speeds.best([PLAIN, ONNX, OPENVINO, BF16]) == BF16
    found = speeds.candidates([PLAIN, ONNX, OPENVINO, BF16])
    assert [one.get("failed") for one in found] == [None, None, "no OpenVINO here", None]
    assert found[0]["speed"] == 1 < found[1]["speed"] < found[3]["speed"]
    assert sorted(removed) == ["onnx", "openvino"]
    again = known(model)
    assert (again.known, again.best([PLAIN, BF16])) == (speeds.known, BF16)
    # Of what its bundle has gone nothing is believed.
    assert (again.best([PLAIN, ONNX]), again.known) == (None, {})
    (file,) = (cache_folder() / "choices").iterdir()
    assert json.loads(file.read_text())["key"]["processor"] == "a cpu"
    for other in (known(model, machine="another"), known(model, flip=True), known(model, 40_000)):
        assert other.known == {}
    for text in ("{", "[]", '{"candidates": [{"runtime": "onnx", "precision": "fp32", "speed": "fast"}]}', '{"candidates": [1]}'):
        file.write_text(text)
        assert known(model).known == {}
    model.write_bytes(b"another")
    assert known(model).known == {}


PASSING = [
    OSError(errno.ENOSPC, "No space left on device"), MemoryError(), RuntimeError("std::bad_alloc"), BusyError("held"),
    PassingError("the process that exported it ended with signal 9"),
]  # fmt: skip


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_a_failure_of_one_moment_is_tried_again(model: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    nets = {PLAIN: net(0.002), BF16: net(0.001), ONNX: error}
    speeds, _ = attempt(model, nets, monkeypatch)
    assert speeds.best([PLAIN, ONNX, BF16]) == BF16
    assert speeds.candidates([ONNX])[0]["failed"]
    assert set(known(model).known) == {PLAIN, BF16}
    monkeypatch.setattr(bundle_cache, "present", lambda model, kind: True)
    assert attempt(model, {PLAIN: net(0.002), ONNX: net(0.001)}, monkeypatch)[0].best([PLAIN, ONNX, BF16]) == ONNX
    assert set(known(model).known) == {PLAIN, BF16, ONNX}


@pytest.mark.parametrize("error", [DataError("cannot be exported"), CheckError("answers otherwise"), ImportError("broken")])
def test_a_failure_that_lasts_is_remembered(model: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt(model, {PLAIN: net(0.001), ONNX: error}, monkeypatch)
    assert known(model).known[ONNX] == {"failed": str(error)}


def test_what_fails_in_the_comparison_is_sorted_too(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = SimpleNamespace(mask=lambda image: (_ for _ in ()).throw(RuntimeError("DefaultCPUAllocator: can't allocate memory")))
    broken = SimpleNamespace(mask=lambda image: (_ for _ in ()).throw(RuntimeError("no such operator")))
    speeds, _ = attempt(model, {PLAIN: net(0.001), ONNX: short, BF16: broken}, monkeypatch)
    assert (set(speeds.known), set(speeds.passing)) == ({PLAIN, BF16}, {ONNX})


def test_what_needs_an_export_that_failed_is_not_waited_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nets = {PLAIN: net(0.001), ONNX: BusyError("held"), OPENVINO: net(0.001), BF16: net(0.001)}
    speeds, opened = attempt(model, nets, monkeypatch)
    assert opened == [ONNX, BF16]
    assert [one["failed"] for one in speeds.candidates([ONNX, OPENVINO])] == ["held", "held"]


def test_the_forecast_counts_what_is_there(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = known(model)
    nothing = speeds.forecast([], 0)
    eager, both = speeds.forecast([BF16], 2), speeds.forecast([BF16, ONNX, OPENVINO], 2)
    assert nothing == 0 < eager < both
    assert both > sum(bundle_cache.SECONDS.values())
    # OpenVINO gets its network by way of ONNX.
    assert speeds.forecast([OPENVINO], 0) > sum(bundle_cache.SECONDS.values())
    monkeypatch.setattr(bundle_cache, "present", lambda model, kind: True)
    assert eager < speeds.forecast([BF16, ONNX, OPENVINO], 2) < 50


def test_a_bar_moves_by_the_clock(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("seenet.core.progress.LINE_EVERY_SECONDS", 0)
    with ticking("trying onnx fp32", 70) as say:
        say("exporting to onnx")
        time.sleep(1.3)
    assert capsys.readouterr().err.startswith("trying onnx fp32: 1/70, 1 s, ETA 69 s, exporting to onnx")
