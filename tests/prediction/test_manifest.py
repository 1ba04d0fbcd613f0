"""The manifest of a folder of predictions: kills, several processes at once, several backends."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seenet.core.errors import BusyError, DataError
from seenet.data.shapes import SHAPES
from seenet.model import create_model
from seenet.model.files import save_model
from seenet.prediction import manifest
from seenet.prediction.batch import PredictReport, predict_files
from seenet.prediction.manifest import open_manifest
from tests.prediction.doubles import draw, raising, red_predictor, tree
from tests.training.launching import ROOT, torchrun

SOURCE = {"input": "1", "model": "2", "settings": "3"}
FP32, BF16 = ("eager", "fp32"), ("eager", "bf16")


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    for number in range(7):
        draw(tmp_path / "photos" / f"{number}.png", number, (20 + number, 30))
    return tmp_path / "photos"


def test_shares_one_after_the_other_make_the_same_tree(seven: Path, tmp_path: Path) -> None:
    one, three = tmp_path / "one", tmp_path / "three"
    predict_files(red_predictor(), [seven], one)
    written = [
        predict_files(red_predictor(), [seven], three, share=(rank, 3)).written
        for rank in (2, 0, 1)
    ]
    assert (written, tree(three)) == ([2, 3, 2], tree(one))
    assert predict_files(red_predictor(), [seven], three).skipped == 7
    assert predict_files(red_predictor(), [seven], three, share=(1, 2)).skipped == 3


def test_shares_hold_the_folder_together(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def busy(*share: int) -> None:
        with pytest.raises(BusyError), open_manifest(out, share):
            pass

    with open_manifest(out, (0, 2)) as first, open_manifest(out, (1, 2)) as second:
        first.record("a", SOURCE, {})
        busy(0, 1)
        busy(1, 2)
        busy(2, 3)
        second.record("b", SOURCE, {})
    assert set(json.loads((out / "manifest.json").read_text())) == {"a", "b"}
    assert [path.name for path in out.iterdir()] == ["manifest.json"]
    with open_manifest(out):
        busy(0, 2)
        busy(0, 1)


@pytest.mark.parametrize("share", [(0, 1), (1, 2), (0, 3)])
def test_the_journal_of_a_killed_process_is_merged_but_for_a_cut_line(
    tmp_path: Path, share: tuple[int, int]
) -> None:
    line = json.dumps({"name": "left", "entry": {**SOURCE, "outputs": {}}})
    (tmp_path / ".manifest.1-2.jsonl").write_text(f'{line}\n{{"name": "cut')
    with open_manifest(tmp_path, share) as opened:
        opened.record("new", SOURCE, {})
    assert set(json.loads((tmp_path / "manifest.json").read_text())) == {"left", "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}', '{"a": {"outputs": {}}}'])
def test_a_damaged_manifest_is_refused(photos, tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        predict_files(red_predictor(), [photos], tmp_path / "out")
    assert tree(tmp_path / "out") == {"manifest.json": text.encode()}


def test_a_disk_that_is_full_at_the_end_loses_nothing(photos, tmp_path, monkeypatch):
    whole = predict_files(red_predictor(), [photos], tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_text", raising(OSError(28, "No space left on device")))
        with pytest.raises(DataError, match=r"manifest\.json: .*No space left"):
            predict_files(red_predictor(), [photos], tmp_path / "out")
    assert predict_files(red_predictor(), [photos], tmp_path / "out").skipped == whole.written
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def switching(many: int = 0, accepted: tuple[Any, ...] = (FP32, BF16), **options: Any) -> Any:
    """A chooser that reverses the pictures; the first `many` are done in fp32, the rest in bf16."""
    fp32, bf16 = (red_predictor(precision=precision, **options) for precision in ("fp32", "bf16"))
    seen: list[str] = []
    return SimpleNamespace(
        accepts=lambda backend: backend in accepted,
        begin=lambda todo: todo[::-1],
        predictor_for=lambda item: fp32 if len(seen) < many else bf16,
        done=lambda item, seconds: seen.append(item.name),
        first=fp32,
        seen=seen,
    )


def run(chooser: Any, photos: Path) -> PredictReport:
    return predict_files(chooser.first, [photos], photos.parent / "out", chooser=chooser)


def backends(out: Path) -> str:
    """The precisions of the pictures, in order of their names."""
    entries = json.loads((out / "manifest.json").read_text())
    assert {entry["runtime"] for entry in entries.values()} == {"eager"}
    return " ".join(entry["precision"] for _, entry in sorted(entries.items()))


def test_a_second_run_keeps_the_outputs_of_accepted_backends(seven: Path) -> None:
    (seven / "bad.png").write_bytes(b"no picture")
    out, chooser = seven.parent / "out", switching(2)
    report = run(chooser, seven)
    assert (report.written, len(report.failed), report.settings["precision"]) == (7, 1, "bf16")
    assert backends(out) == "bf16 bf16 bf16 bf16 bf16 fp32 fp32"
    assert chooser.seen == ["6", "5", "4", "3", "2", "1", "0"]
    (seven / "bad.png").unlink()
    before = tree(out)
    report = run(switching(9), seven)
    assert (report.written, report.skipped, tree(out)) == (0, 7, before)
    for other in (switching(accepted=(FP32,)), switching(accepted=()), switching(flip=True)):
        with pytest.raises(DataError, match="--overwrite"):
            run(other, seven)
    assert tree(out) == before
    # A picture that is done again replaces the mask of the other backend.
    (out / "overlays/0.jpg").unlink()
    assert run(switching(9), seven).written == 1
    assert backends(out) == "fp32 bf16 bf16 bf16 bf16 fp32 fp32"


@pytest.mark.slow
def test_torchrun_shares_the_pictures(seven: Path, tmp_path: Path) -> None:
    network = create_model("baseline", backbone="resnet10t", num_classes=6)
    save_model(tmp_path / "model.safetensors", network, SHAPES)
    (seven / "broken.png").write_bytes(b"no picture")
    line = ["-m", "seenet", "predict", "model.safetensors", str(seven), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    alone, shared = (
        subprocess.run(
            [*start, *line, "--out", out],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        for start, out in (([sys.executable], "one"), (torchrun(2), "two"))
    )
    assert alone.returncode == 3, alone.stderr
    assert shared.returncode != 0
    assert "7 written, 0 done before, 1 failed" in shared.stdout, shared.stderr
    assert "broken.png" in shared.stderr
    assert tree(tmp_path / "two") == tree(tmp_path / "one")
