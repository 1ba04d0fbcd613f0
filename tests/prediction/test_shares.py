"""Processes that share the pictures leave what one alone would."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import BusyError
from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction.batch import predict_files
from seenet.prediction.manifest import open_manifest
from seenet.prediction.predictor import Predictor
from tests.prediction.doubles import LABELS, RedNet
from tests.training.launching import ROOT, torchrun

INFO = {"file": "red.safetensors", "sha256": "0" * 64}


def predictor() -> Predictor:
    return Predictor(RedNet(), LABELS, device="cpu", info=INFO)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(7):
        image = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def test_shares_one_after_the_other_make_the_same_tree(photos: Path, tmp_path: Path) -> None:
    predict_files(predictor(), [photos], tmp_path / "one")
    written = [predict_files(predictor(), [photos], tmp_path / "three", share=(rank, 3)).written for rank in (2, 0, 1)]
    assert written == [2, 3, 2]
    assert tree(tmp_path / "three") == tree(tmp_path / "one")
    assert predict_files(predictor(), [photos], tmp_path / "three").skipped == 7
    assert predict_files(predictor(), [photos], tmp_path / "three", share=(1, 2)).skipped == 3


def test_shares_hold_the_folder_together_and_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_manifest(out, (0, 2)) as first, open_manifest(out, (1, 2)) as second:
        first.record("a", {"input": "1", "model": "2", "settings": "3"}, {})
        with pytest.raises(BusyError), open_manifest(out):
            pass
        with pytest.raises(BusyError), open_manifest(out, (1, 2)):
            pass
        second.record("b", {"input": "1", "model": "2", "settings": "3"}, {})
    assert set(json.loads((out / "manifest.json").read_text())) == {"a", "b"}
    assert [path.name for path in out.iterdir()] == ["manifest.json"]
    with open_manifest(out), pytest.raises(BusyError), open_manifest(out, (0, 2)):
        pass


def test_what_a_killed_share_left_is_folded_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    entry = {"input": "1", "model": "2", "settings": "3", "outputs": {}}
    (out / ".manifest.1-2.jsonl").write_text(json.dumps({"name": "left", "entry": entry}) + "\n" + '{"name": "cut')
    with open_manifest(out, (0, 3)) as manifest:
        assert set(manifest.entries) == {"left"}
    assert [path.name for path in out.iterdir()] == ["manifest.json"]


@pytest.mark.slow
def test_torchrun_shares_the_pictures(photos: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", create_model("baseline", backbone="resnet10t", num_classes=6), SHAPES)
    (photos / "broken.png").write_bytes(b"no picture")
    line = ["-m", "seenet", "predict", str(tmp_path / "model.safetensors"), str(photos), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False)

    alone = run([sys.executable, *line, "--out", "one"])
    assert alone.returncode == 3, alone.stderr
    shared = run([*torchrun(2), *line, "--out", "two"])
    assert shared.returncode != 0
    assert "7 written, 0 done before, 1 failed" in shared.stdout, shared.stderr
    assert "broken.png" in shared.stderr
    assert tree(tmp_path / "two") == tree(tmp_path / "one")
