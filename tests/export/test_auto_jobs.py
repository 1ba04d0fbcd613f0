"""Jobs that choose while they run: what a folder becomes, killed or not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seenet.core import processor
from seenet.core.files import sha256
from seenet.export import auto, bundle_cache, fastest
from seenet.export.auto import PLAIN, Chosen, open_chosen
from seenet.export.fastest import Speeds
from seenet.prediction import batch
from seenet.prediction.batch import PredictReport, predict_files
from seenet.prediction.predictor import Predictor
from tests.export.choosing import BF16, ONNX, OPENVINO, draw, known
from tests.export.test_bundle_cache import exported
from tests.prediction.doubles import LABELS, RedNet


def red(way: Any) -> Predictor:
    info = {"file": "model.safetensors", "sha256": sha256(Path("model.safetensors"))}
    return Predictor(RedNet(), LABELS, device="cpu", precision=way[1], info=info)


def job(monkeypatch: pytest.MonkeyPatch, out: str) -> tuple[PredictReport, Chosen]:
    """A run in which plain fp32 is begun with and bf16 tried, however few pictures there are, and found the faster."""

    def open_way(path: Path, way: Any, *_: Any, **__: Any) -> Predictor:
        return red(way)

    def measured(opened: Any, *_: Any) -> Any:
        return {PLAIN: 1.0, BF16: 0.5}, dict.fromkeys(opened, 1.0)

    monkeypatch.setattr(auto, "find_spec", lambda name: None)
    monkeypatch.setattr(processor, "has_bf16", lambda: True)
    monkeypatch.setattr(auto, "WORTH", 1e-9)
    monkeypatch.setattr(auto, "open_way", open_way)
    monkeypatch.setattr(fastest, "open_way", open_way)
    monkeypatch.setattr(fastest, "measured", measured)
    chosen = open_chosen("model.safetensors", ["pictures"], Path(out))
    return predict_files(chosen.predictor, ["pictures"], Path(out), chooser=chosen), chosen


def made(out: str) -> dict[str, str]:
    return {name: entry["precision"] for name, entry in json.loads(Path(out, "manifest.json").read_text()).items()}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_masks_made_before_the_choice_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, chosen = job(monkeypatch, "out")
    assert (report.written, report.settings["precision"]) == (6, "bf16")
    assert (chosen.choice.runtime, chosen.choice.precision) == BF16
    assert sorted(made("out").values()) == ["bf16"] * 3 + ["fp32"] * 3
    before = tree(Path("out"))
    report, chosen = job(monkeypatch, "out")
    assert (report.written, report.skipped, chosen.choice.precision) == (0, 6, "bf16")
    assert tree(Path("out")) == before
    # Another folder has it from the start.
    job(monkeypatch, "other")
    assert set(made("other").values()) == {"bf16"}
    assert {name: content for name, content in before.items() if name != "manifest.json"} == {
        name: content for name, content in tree(Path("other")).items() if name != "manifest.json"
    }


def forget() -> None:
    for file in Path("cache/seenet/choices").iterdir():
        file.unlink()


def stop(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("lost", [False, True], ids=["remembered", "cache lost"])
@pytest.mark.parametrize("moment", [1, 2, "trial", 4, 5])
def test_killed_and_run_again_it_leaves_what_one_run_leaves(
    folder: Path, moment: int | str, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "AGAIN", 0)
    job(monkeypatch, "whole")
    forget()
    segment, calls = batch._segment, iter(range(9))
    with monkeypatch.context() as patch:
        if moment == "trial":
            patch.setattr(Speeds, "attempt", stop)
        else:
            patch.setattr(batch, "_segment", lambda *more: stop() if next(calls) == moment else segment(*more))
        with pytest.raises(KeyboardInterrupt):
            job(patch, "out")
    assert len(made("out")) < 6
    if lost:
        forget()
    job(monkeypatch, "out")
    assert tree(Path("out")) == tree(Path("whole"))


def test_first_pictures_that_are_done_are_done_again_where_much_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that was killed before it chose tells nothing of its pace; to see it again must not cost what it may save."""
    for again, precision in ((2, "fp32"), (0.5, "bf16")):
        monkeypatch.setattr(auto, "AGAIN", again)
        out = f"out{again}"
        predict_files(red(PLAIN), [f"pictures/{place:02d}.png" for place in (1, 2, 3)], Path(out))
        report, chosen = job(monkeypatch, out)
        assert (report.written, report.skipped, chosen.choice.precision) == (3, 3, precision)
        assert made(out) == dict(zip(("00", "01", "02", "03", "04", "05"), [precision, *["fp32"] * 3, precision, precision], strict=True))


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
    monkeypatch.setattr(bundle_cache, "_export", lambda model, out, pictures, lock, patience: exported(model, out, pictures))
    # What `seenet predict` asks for by default is part of what a choice is remembered by; the process may find bf16 here.
    speeds = known({PLAIN: 1.0, ONNX: 2.0, OPENVINO: 1.5, BF16: 1.5, ("openvino", "bf16"): "no bf16 in it"}, tile="auto")
    bundle_cache.bundle(speeds.path, "onnx", lambda: [])
    reports = []
    for count in (6, 8):
        draw(count)
        done = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(done.stdout))
        assert "runtime onnx, precision fp32: " in done.stderr
    assert [(report["written"], report["skipped"]) for report in reports] == [(6, 0), (2, 6)]
    assert reports[0]["choice"]["why"] == "2.00 times as fast as plain fp32 where it was tried"
    assert all(report["runtime"].startswith("onnxruntime ") and report["precision"] == "fp32" for report in reports)
