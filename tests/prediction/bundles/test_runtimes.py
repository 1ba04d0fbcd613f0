"""Hostile and damaged files, OpenVINO's pair of files, and errors of the runtimes."""

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
from seenet.prediction.bundles.bundle import Card
from seenet.prediction.bundles.runtimes import _runtime_errors, read_metadata
from seenet.prediction.loading import load
from tests.prediction.bundles import hostile
from tests.prediction.bundles.red import card, red_model, red_scores, write_red
from tests.prediction.doubles import picture, seenet_command


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
def test_hostile_files_are_refused_before_a_runtime_reads_them(
    edit: Callable[[Any], None], message: str, tmp_path: Path
) -> None:
    path = write_red(tmp_path / "hostile.onnx", edit=edit)
    with pytest.raises(DataError, match=f"refused: .*{message}") as caught:
        read_metadata(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "edit",
    [
        hostile.huge,
        hostile.negative,
        hostile.huge_constant,
        hostile.unknown_type,
        hostile.grows,
        hostile.wrong_shape,
    ],
)
def test_hostile_files_end_the_trial_process_alone(
    edit: Callable[[Any], None], tmp_path: Path
) -> None:
    """Bar X5."""
    path = write_red(tmp_path / "hostile.onnx", edit=edit)
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_refused_file_is_refused_again(tmp_path: Path) -> None:
    """Only files that passed are remembered."""
    path, out = write_red(tmp_path / "hostile.onnx", edit=hostile.wrong_shape), tmp_path / "out"
    for _ in range(2):
        assert seenet_command("predict", path, tmp_path, "--out", out) == 4
    assert not out.exists()


def test_truncated_and_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = write_red(tmp_path / "whole.onnx").read_bytes()
    path, generator = tmp_path / "cut.onnx", np.random.default_rng(0)
    for length in (0, 1, *generator.integers(2, len(whole), 60)):
        path.write_bytes(whole[:length])
        # A cut may fall between two fields: the metadata comes last, and is then missing.
        assert "seenet" not in hostile.metadata_or_refusal(path)
    for place in generator.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        hostile.metadata_or_refusal(path)


def write(path: Path, one: Card | None = None) -> Path:
    write_openvino(path, openvino.Core().read_model(red_model().SerializeToString()), one or card())
    return path


@pytest.fixture
def red(tmp_path: Path) -> Path:
    return write(tmp_path / "red.xml")


PROGRAM = """
import sys, numpy, seenet
net = seenet.load("red.xml")
numpy.save("scores.npy", net.scores(numpy.load("image.npy")))
assert "torch" not in sys.modules and net.settings["runtime"].startswith("openvino ")
"""


def test_openvino_answers_without_torch(red: Path) -> None:
    np.save(red.with_name("image.npy"), picture(5, 8))
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=red.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(red.with_name("scores.npy")), red_scores(picture(5, 8)))


def test_missing_and_damaged_halves_are_refused(red: Path) -> None:
    for half in (red.with_suffix(".bin"), red):
        whole = half.read_bytes()
        half.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=f"{red}: .*export it again"):
            load(red)
        half.write_bytes(whole)
    red.with_suffix(".bin").unlink()
    with pytest.raises(DataError, match=r"red\.bin"):
        load(red)


def test_a_file_without_metadata_is_refused(tmp_path: Path) -> None:
    model = openvino.Core().read_model(red_model().SerializeToString())
    openvino.save_model(model, tmp_path / "bare.xml")
    with pytest.raises(DataError, match="holds no SeENet metadata"):
        load(tmp_path / "bare.xml")


def test_precisions(red: Path) -> None:
    with pytest.raises(UsageError, match="runs in fp32 or bf16"):
        load(red, precision="fp16")
    half = write(red.with_name("half.xml"), replace(card(), precision="fp16"))
    precisions = [load(red, precision="bf16").precision, load(half).precision]
    assert precisions == ["bf16", "fp16"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            "Check 'ptr' failed at cpu_memory.cpp:257:\n"
            "Failed to allocate 108000000 bytes of memory\n",
            MemoryError,
        ),
        ("Status Message: std::bad_alloc", MemoryError),
        ("Output 1 of node Add is not allocated", DataError),
        ("Failed to allocate required number of vector registers", DataError),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, _runtime_errors(Path("a.onnx")):
        raise RuntimeError(text)
    assert "\n" not in str(caught.value)
