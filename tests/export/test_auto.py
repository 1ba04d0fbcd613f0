"""What is left to choose from, what is known of it, and what a job is begun with."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seenet.core import processor
from seenet.core.errors import UsageError
from seenet.core.files import sha256
from seenet.export import auto, bundles
from seenet.export.auto import PLAIN, Choice, Chosen, open_chosen
from tests.export.choosing import BF16, ONNX, OPENVINO, known
from tests.prediction.bundles import write_red


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
    monkeypatch.setattr(bundles, "present", lambda model, kind, versions: present)
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
    monkeypatch.setattr(bundles, "present", lambda model, kind, versions: present)
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
