"""Which way is taken, with predictors whose speed and answers are made up."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import BusyError, DataError
from seenet.core.files import cache_folder
from seenet.export import bundles, fastest
from seenet.export.fastest import PLAIN, measured
from seenet.prediction.loading import PredictOptions

ONNX, OPENVINO = ("onnx", "fp32"), ("openvino", "fp32")
WAYS = [PLAIN, ONNX, OPENVINO]


def net(seconds: float, wrong: int = 0) -> Any:
    """Takes its time, and gives `wrong` pixels another class."""

    def mask(image: np.ndarray) -> np.ndarray:
        time.sleep(seconds)
        found = image[:, :, 0] // 128
        found.flat[:wrong] += 1
        return found

    return SimpleNamespace(mask=mask)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model.safetensors").write_bytes(b"a model")
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (100, 100, 3), np.uint8)).save(path)
    paths[0].write_bytes(b"no picture")
    return paths


def choose(pictures: list[Path], nets: dict[Any, Any], monkeypatch: pytest.MonkeyPatch, ways: Any = WAYS, **changed: Any) -> Any:
    """The choice, and how many networks were opened for it."""
    opened = []

    def open_way(path: Path, way: Any, pictures: Any, options: PredictOptions) -> Any:
        opened.append(way)
        if isinstance(nets[way], Exception):
            raise nets[way]
        return nets[way]

    monkeypatch.setattr(fastest, "open_way", open_way)
    machine = changed.pop("machine", "a cpu")
    path = pictures[0].parent / "model.safetensors"
    choice = fastest.fastest(path, ways, pictures, machine=machine, options=PredictOptions(**changed))
    return choice, len(opened)


def test_the_fastest_that_answers_alike() -> None:
    images = [np.random.default_rng(number).integers(0, 256, (100, 100, 3), np.uint8) for number in range(2)]
    failed: dict[Any, str] = {}
    nets = {
        PLAIN: net(0.004), ONNX: net(0.002, wrong=1), OPENVINO: net(0, wrong=2), ("eager", "bf16"): net(0.001, wrong=10),
        ("openvino", "bf16"): net(0, wrong=11),
    }  # fmt: skip
    seconds, equal = measured(nets, images, failed)
    assert list(seconds) == [PLAIN, ONNX, ("eager", "bf16")]
    assert equal == {PLAIN: 1.0, ONNX: 0.9999, ("eager", "bf16"): 0.999}
    assert 0.001 < seconds["eager", "bf16"] < seconds[ONNX] < seconds[PLAIN] < 0.1
    assert failed == {
        OPENVINO: "gives 99.980 % of the pixels the class of plain fp32, expected 99.99 %",
        ("openvino", "bf16"): "gives 99.890 % of the pixels the class of plain fp32, expected 99.9 %",
    }


def test_one_picture_has_to_do_where_they_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "LONG_SECONDS", 0.001)
    calls: list[int] = []
    slow = SimpleNamespace(mask=lambda image: (time.sleep(0.002), calls.append(int(image[0, 0, 0])), image[:, :, 0])[2])
    measured({PLAIN: slow}, [np.full((2, 2, 3), number, np.uint8) for number in range(3)], {})
    assert set(calls) == {0}


def test_the_choice_is_remembered_for_this_model_machine_and_settings(pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    removed = []
    monkeypatch.setattr(bundles, "present", lambda model, kind, versions: False)
    monkeypatch.setattr(bundles, "remove", lambda model, kind, versions: removed.append(kind))
    nets = {PLAIN: net(0.003), ONNX: net(0.001), OPENVINO: DataError("no OpenVINO today")}
    choice, opened = choose(pictures, nets, monkeypatch)
    assert (choice.runtime, choice.precision, opened) == ("onnx", "fp32", 3)
    assert "times as fast as plain fp32 on the first pictures" in choice.why
    assert [one.get("failed") for one in choice.candidates] == [None, None, "no OpenVINO today"]
    assert [set(one) for one in choice.candidates[:2]] == [{"runtime", "precision", "seconds", "equal"}] * 2
    assert removed == ["openvino"]
    # Its bundle is gone: tried again.
    assert choose(pictures, nets, monkeypatch)[1] == 3
    monkeypatch.setattr(bundles, "present", lambda model, kind, versions: True)
    again, opened = choose(pictures, nets, monkeypatch)
    assert (again.runtime, again.precision, opened) == ("onnx", "fp32", 0)
    assert [set(one) for one in again.candidates] == [set(one) for one in choice.candidates]
    (file,) = (cache_folder() / "choices").iterdir()
    assert json.loads(file.read_text())["key"]["processor"] == "a cpu"
    file.write_text("{")
    assert choose(pictures, nets, monkeypatch)[1] == 3
    for changed in ({"machine": "another"}, {"flip": True}, {"ways": [PLAIN, ONNX]}):
        assert choose(pictures, nets, monkeypatch, **changed)[1] > 0
        assert choose(pictures, nets, monkeypatch, **changed)[1] == 0
    pictures[0].parent.joinpath("model.safetensors").write_bytes(b"another")
    assert choose(pictures, nets, monkeypatch)[1] == 3


def test_where_others_fail_it_is_plain_fp32_and_where_all_do_it_is_said(pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    nets = {PLAIN: net(0), ONNX: DataError("no export"), OPENVINO: net(0, wrong=900)}
    choice, _ = choose(pictures, nets, monkeypatch)
    assert (choice.runtime, choice.precision) == PLAIN
    with pytest.raises(DataError, match="onnx fp32: no export"):
        choose(pictures, nets, monkeypatch, [ONNX])
    with pytest.raises(DataError, match="plain fails"):
        choose(pictures, {PLAIN: DataError("plain fails"), ONNX: net(0)}, monkeypatch, [PLAIN, ONNX])


def test_pictures_that_cannot_be_read_measure_nothing(pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(pictures[:1], {}, monkeypatch)[0].why == "none of the first pictures can be read"


def test_a_cache_that_others_hold_decides_nothing_for_later(pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    nets: dict[Any, Any] = {PLAIN: net(0.02), ONNX: BusyError("held"), OPENVINO: BusyError("held")}
    choice, _ = choose(pictures, nets, monkeypatch)
    assert ((choice.runtime, choice.precision), choice.why) == (PLAIN, "held")
    with pytest.raises(BusyError, match="held"):
        choose(pictures, nets, monkeypatch, ways=[ONNX, OPENVINO])
    assert choose(pictures, {**nets, ONNX: net(0), OPENVINO: net(0.01)}, monkeypatch)[0].runtime == "onnx"
