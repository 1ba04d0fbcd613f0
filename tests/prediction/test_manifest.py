"""What a folder of predictions holds is known again, after a kill and to several processes at once."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seenet.core.errors import BusyError, DataError
from seenet.core.labels import SHAPES
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction import manifest
from seenet.prediction.batch import predict_files
from seenet.prediction.manifest import open_manifest
from tests.prediction.doubles import draw, red_predictor, tree
from tests.training.launching import ROOT, torchrun

WAY = {"runtime": "eager", "precision": "fp32"}


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    for number in range(7):
        draw(tmp_path / "photos" / f"{number}.png", number, (20 + number, 30))
    return tmp_path / "photos"


def test_shares_one_after_the_other_make_the_same_tree(seven: Path, tmp_path: Path) -> None:
    predict_files(red_predictor(), [seven], tmp_path / "one")
    written = [predict_files(red_predictor(), [seven], tmp_path / "three", share=(rank, 3)).written for rank in (2, 0, 1)]
    assert written == [2, 3, 2]
    assert tree(tmp_path / "three") == tree(tmp_path / "one")
    assert predict_files(red_predictor(), [seven], tmp_path / "three").skipped == 7
    assert predict_files(red_predictor(), [seven], tmp_path / "three", share=(1, 2)).skipped == 3


def test_shares_hold_the_folder_together_and_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_manifest(out, WAY, (0, 2)) as first, open_manifest(out, WAY, (1, 2)) as second:
        first.record("a", {"input": "1", "model": "2", "settings": "3"}, {})
        with pytest.raises(BusyError), open_manifest(out, WAY):
            pass
        with pytest.raises(BusyError), open_manifest(out, WAY, (1, 2)):
            pass
        second.record("b", {"input": "1", "model": "2", "settings": "3"}, {})
    assert set(json.loads((out / "manifest.json").read_text())) == {"a", "b"}
    assert [path.name for path in out.iterdir()] == ["manifest.json"]
    with open_manifest(out, WAY), pytest.raises(BusyError), open_manifest(out, WAY, (0, 2)):
        pass


def test_what_a_killed_share_left_is_folded_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    entry = {"input": "1", "model": "2", "settings": "3", "outputs": {}}
    (out / ".manifest.1-2.jsonl").write_text(json.dumps({"name": "left", "entry": entry}) + "\n" + '{"name": "cut')
    with open_manifest(out, WAY, (0, 3)) as manifest:
        assert set(manifest.entries) == {"left"}
    assert [path.name for path in out.iterdir()] == ["manifest.json"]


def test_a_cut_last_line_of_the_journal_is_dropped(photos, tmp_path):
    out = tmp_path / "out"
    predict_files(red_predictor(), [photos], out)
    whole = tree(out)
    entries = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").unlink()
    lines = [json.dumps({"name": name, "entry": entry}) + "\n" for name, entry in entries.items()]
    for path in ("masks/sub/c.png", "overlays/sub/c.jpg"):
        (out / path).unlink()
    (out / ".manifest.jsonl").write_text("".join(lines)[:-30])
    predict_files(red_predictor(), [photos], out)
    assert tree(out) == whole


def test_one_process_at_a_time(photos, tmp_path):
    (tmp_path / "out").mkdir()
    handle = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(BusyError):
            predict_files(red_predictor(), [photos], tmp_path / "out")
    finally:
        os.close(handle)
    assert predict_files(red_predictor(), [photos], tmp_path / "out").written == 3


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}', '{"a": {"outputs": {}}}'])
def test_a_damaged_manifest_is_named(photos, tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        predict_files(red_predictor(), [photos], tmp_path / "out")
    assert tree(tmp_path / "out") == {"manifest.json": text.encode()}


def test_a_disk_that_is_full_at_the_end_loses_nothing(photos, tmp_path, monkeypatch):
    whole = predict_files(red_predictor(), [photos], tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(DataError, match=r"manifest\.json: cannot be written \(No space left on device\); make room and run it again"):
            predict_files(red_predictor(), [photos], tmp_path / "out")
    assert predict_files(red_predictor(), [photos], tmp_path / "out").skipped == whole.written
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.slow
def test_torchrun_shares_the_pictures(seven: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", create_model("baseline", backbone="resnet10t", num_classes=6), SHAPES)
    (seven / "broken.png").write_bytes(b"no picture")
    line = ["-m", "seenet", "predict", str(tmp_path / "model.safetensors"), str(seven), "--device", "cpu"]
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
