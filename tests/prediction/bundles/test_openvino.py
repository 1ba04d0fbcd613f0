"""OpenVINO's pair of files is a model like any other, without torch in the process."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest

from seenet.core.errors import DataError, UsageError
from seenet.export.openvino import write_openvino
from seenet.prediction.loading import load
from tests.prediction.bundles.red import CENTRES, card, red_model


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
