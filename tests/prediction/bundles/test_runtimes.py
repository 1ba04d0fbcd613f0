"""Runtimes: ONNX files are checked before, OpenVINO's pair answers without torch, and what a runtime raises becomes one line."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

from seenet.core.errors import DataError, UsageError
from seenet.export.openvino import write_openvino
from seenet.prediction.bundles.runtimes import _runtime_errors, read_metadata
from seenet.prediction.loading import load
from tests.prediction.bundles import hostile
from tests.prediction.bundles.red import CENTRES, card, red_model, write_red


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (hostile.external, "in another file"),
        (hostile.external_attribute, "in another file"),
        (hostile.unknown_operator, "Abracadabra"),
        (hostile.unknown_domain, r"'com\.example'"),
        (hostile.hidden_in_a_branch, "Evil"),
        (hostile.nested, "no valid ONNX model"),
    ],
)
def test_a_runtime_never_sees_it(edit: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    path = write_red(tmp_path / "hostile.onnx", edit=edit)
    with pytest.raises(DataError, match=f"refused: .*{message}") as caught:
        read_metadata(path)
    assert "\n" not in str(caught.value)


def test_truncated_and_damaged_files(tmp_path: Path) -> None:
    whole = write_red(tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    generator = np.random.default_rng(0)
    for length in (0, 1, *generator.integers(2, len(whole), 60)):
        path.write_bytes(whole[:length])
        # A cut may fall between two fields: the metadata is what comes last, and is then missing.
        assert "seenet" not in hostile.metadata_or_refusal(path)
    for place in generator.integers(0, len(whole), 300):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << int(generator.integers(8)))]) + whole[place + 1 :])
        hostile.metadata_or_refusal(path)


@pytest.fixture
def red(tmp_path: Path) -> Path:
    path = tmp_path / "red.xml"
    write_openvino(path, openvino.Core().read_model(red_model().SerializeToString()), card())
    return path


def test_it_answers_without_torch(red: Path) -> None:
    program = (
        "import sys, numpy, seenet; net = seenet.load('red.xml'); numpy.save('scores.npy', net.scores(numpy.load('image.npy'))); "
        "assert 'torch' not in sys.modules and net.settings['runtime'].startswith('openvino ')"
    )
    image = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    np.save(red.parent / "image.npy", image)
    done = subprocess.run([sys.executable, "-c", program], cwd=red.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = -np.abs(image[None, :, :, 0].astype(np.float32) - np.array(CENTRES, np.float32)[:, None, None])
    assert np.array_equal(np.load(red.parent / "scores.npy"), expected)


def test_one_half_alone_and_damaged_halves(red: Path) -> None:
    weights = red.with_suffix(".bin").read_bytes()
    text = red.read_text()
    red.with_suffix(".bin").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(DataError, match=f"{red}: .*export it again"):
        load(red)
    red.with_suffix(".bin").write_bytes(weights)
    red.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=f"{red}: .*export it again"):
        load(red)
    red.write_text(text)
    red.with_suffix(".bin").unlink()
    with pytest.raises(DataError, match=r"its weights red\.bin are not beside it"):
        load(red)


def test_without_metadata_or_of_a_newer_version(tmp_path: Path) -> None:
    model = openvino.Core().read_model(red_model().SerializeToString())
    openvino.save_model(model, tmp_path / "bare.xml")
    with pytest.raises(DataError, match="holds no SeENet metadata"):
        load(tmp_path / "bare.xml")


def test_precisions(red: Path) -> None:
    with pytest.raises(UsageError, match="runs in fp32 or bf16"):
        load(red, precision="fp16")
    assert load(red, precision="bf16").settings["precision"] == "bf16"
    half = red.with_name("half.xml")
    write_openvino(half, openvino.Core().read_model(red_model().SerializeToString()), replace(card(), precision="fp16"))
    assert load(half).settings["precision"] == "fp16"


def test_the_same_bytes_again(red: Path) -> None:
    again = red.with_name("again.xml")
    write_openvino(again, openvino.Core().read_model(red_model().SerializeToString()), card())
    assert again.read_bytes() == red.read_bytes()
    assert again.with_suffix(".bin").read_bytes() == red.with_suffix(".bin").read_bytes()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Check 'ptr' failed at cpu_memory.cpp:257:\nFailed to allocate 108000000 bytes of memory\n", MemoryError),
        ("Status Message: std::bad_alloc", MemoryError),
        ("Output 1 of node Add is not allocated", DataError),
        ("Failed to allocate required number of vector registers", DataError),
    ],
)
def test_memory_is_told_from_other_refusals(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, _runtime_errors(Path("a.onnx")):
        raise RuntimeError(text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("a.onnx: the runtime refuses it") == (kind is DataError)
