"""What is left to choose from, and when nothing is measured."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seenet.core import processor
from seenet.core.errors import DataError, UsageError
from seenet.core.files import sha256
from seenet.export import auto, bundles, fastest
from seenet.export.auto import LEAST, open_chosen
from seenet.export.fastest import Choice
from seenet.prediction.loading import PredictOptions
from seenet.prediction.manifest import begun_with
from tests.export.test_bundles import exported
from tests.prediction.bundles.red import write_red


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model file that nobody reads, and pictures."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processor, "has_bf16", lambda: False)
    Path("model.safetensors").write_bytes(b"a model")
    draw(LEAST)
    return tmp_path


def draw(count: int) -> None:
    Path("pictures").mkdir(exist_ok=True)
    for number in range(count):
        image = np.random.default_rng(number).integers(0, 256, (6, 9, 3), np.uint8)
        Image.fromarray(image).save(f"pictures/{number:02d}.png")


def ask(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """The choice, and from which ways it was left to measurement (None: it was not)."""
    asked: dict[str, Any] = {"ways": None}

    def measure(path: Path, ways: Any, pictures: Any, **more: Any) -> Choice:
        asked["ways"] = list(ways)
        return Choice("onnx", "fp32", "fast")

    monkeypatch.setattr(auto, "fastest", measure)
    monkeypatch.setattr(auto, "open_way", lambda path, way, *_, **__: way)
    way, choice = open_chosen("model.safetensors", ["pictures"], Path("out"), **options)
    assert way == (choice.runtime, choice.precision)
    return choice, asked["ways"]


def test_it_is_measured_from_twenty_pictures_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ("eager", "fp32")
    assert ask(monkeypatch) == (Choice("onnx", "fp32", "fast"), [plain, ("onnx", "fp32"), ("openvino", "fp32")])
    monkeypatch.setattr(processor, "has_bf16", lambda: True)
    assert ask(monkeypatch)[1] == [plain, ("onnx", "fp32"), ("openvino", "fp32"), ("eager", "bf16"), ("openvino", "bf16")]
    assert ask(monkeypatch, runtime="openvino")[1] == [("openvino", "fp32"), ("openvino", "bf16")]
    assert ask(monkeypatch, precision="bf16")[1] == [("eager", "bf16"), ("openvino", "bf16")]
    assert ask(monkeypatch, scales=(1.0, 2.0))[1] == [plain, ("eager", "bf16")]
    Path("pictures/00.png").unlink()
    choice, ways = ask(monkeypatch)
    assert (choice.runtime, choice.precision, ways) == ("eager", "fp32", None)
    assert "from 20 pictures on" in choice.why


def test_what_is_asked_for_is_not_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"runtime": "eager", "precision": "fp32"}, {"runtime": "onnx"}, {"runtime": "openvino", "precision": "fp32"}):
        choice, ways = ask(monkeypatch, **options)
        assert (choice.runtime, choice.precision, choice.why, ways) == (options["runtime"], "fp32", "asked for", None)


def test_without_the_extra_it_is_plain_fp32(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "find_spec", lambda name: None if name == "onnxruntime" else object())
    choice, ways = ask(monkeypatch)
    assert (choice.runtime, ways) == ("eager", None)
    assert choice.why == "nothing else is available here: onnxruntime is not installed: pip install 'seenet[export]'"
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


def test_a_folder_goes_on_with_what_it_was_begun_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"input": "", "model": sha256(Path("model.safetensors")), "settings": "", "outputs": {}}
    Path("out").mkdir()
    for more, expected in (
        ({}, ("eager", "fp32")),
        ({"runtime": "onnxruntime 1.23.0", "precision": "fp32"}, ("onnx", "fp32")),
        ({"runtime": "openvino 2026.1", "precision": "fp32"}, ("openvino", "fp32")),
    ):
        Path("out/manifest.json").write_text(json.dumps({"a": {**entry, **more}}))
        choice, ways = ask(monkeypatch)
        assert (choice.runtime, choice.precision, choice.why, ways) == (*expected, "out was begun with it", None)
    # Another model's outputs say nothing of this one; what is gone from this machine cannot go on.
    Path("out/manifest.json").write_text(json.dumps({"a": {**entry, "model": "0"}}))
    assert ask(monkeypatch)[1] is not None
    Path("out/manifest.json").write_text(json.dumps({"a": {**entry, "runtime": "eager", "precision": "bf16"}}))
    assert ask(monkeypatch)[1] is not None


def test_an_exported_model_has_its_runtime(folder: Path) -> None:
    write_red(Path("red.onnx"))
    predictor, choice = open_chosen("red.onnx", ["pictures"], Path("out"))
    assert (choice.runtime, choice.precision) == ("onnx", "fp32")
    assert predictor.settings["runtime"].startswith("onnxruntime ")
    with pytest.raises(UsageError, match="exported for onnx"):
        open_chosen("red.onnx", ["pictures"], Path("out"), runtime="openvino")
    with pytest.raises(UsageError, match="runs in fp32"):
        open_chosen("red.onnx", ["pictures"], Path("out"), precision="bf16")


COMMAND = """
import sys
from seenet.cli import main
try:
    main(["predict", "model.safetensors", "pictures", "--out", "out", "--json"])
except SystemExit as end:
    assert not end.code
assert "torch" not in sys.modules, "torch was imported"
"""


@pytest.mark.slow
def test_a_remembered_choice_starts_without_torch_and_the_folder_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise DataError("no OpenVINO today")

    monkeypatch.setattr(bundles, "_export", lambda model, out, pictures, lock: exported(model, out, pictures))
    monkeypatch.setattr(bundles, "_convert", refuse)
    monkeypatch.setattr(fastest, "open_predictor", lambda *_: fastest.open_way(Path("model.safetensors"), ("onnx", "fp32"), [], options))
    # What `seenet predict` asks for by default: it is part of what a choice is remembered by.
    options = PredictOptions(tile="auto")
    # Whatever is measured, onnx is taken.
    ways = [("eager", "fp32"), ("onnx", "fp32"), ("openvino", "fp32")]
    found = ({("eager", "fp32"): 2.0, ("onnx", "fp32"): 1.0}, dict.fromkeys(ways, 1.0))
    monkeypatch.setattr(fastest, "measured", lambda opened, images, failed: found)
    pictures = sorted(Path("pictures").iterdir())
    fastest.fastest(Path("model.safetensors"), ways, pictures, machine=processor.name(), options=options)
    reports = []
    for count in (LEAST, LEAST + 2):
        draw(count)
        done = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(done.stdout))
        assert "runtime onnx, precision fp32: " in done.stderr
    assert [(report["written"], report["skipped"]) for report in reports] == [(LEAST, 0), (2, LEAST)]
    assert reports[0]["choice"]["why"] == "2.00 times as fast as plain fp32 on the first pictures"
    assert reports[1]["choice"]["why"] == "out was begun with it"
    assert all(report["runtime"].startswith("onnxruntime ") and report["precision"] == "fp32" for report in reports)
    runtime, precision = begun_with(Path("out"), sha256(Path("model.safetensors"))) or ("", "")
    assert (runtime, precision) == (reports[0]["runtime"], "fp32")
