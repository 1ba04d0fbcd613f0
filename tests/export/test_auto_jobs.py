"""Jobs that choose their backend while they run: what a folder becomes, killed or not."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seenet.core import processor
from seenet.core.files import sha256
from seenet.export import auto, backends, bundle_cache, fastest
from seenet.export.auto import Chosen, open_chosen
from seenet.export.backends import PLAIN
from seenet.export.fastest import Speeds
from seenet.prediction import batch
from seenet.prediction.batch import PredictReport, predict_files
from seenet.prediction.predictor import Predictor
from tests.export.choosing import BF16, ONNX, OPENVINO, OPENVINO_BF16, draw_pictures, known
from tests.export.test_bundle_cache import exported
from tests.prediction.doubles import raising, red_predictor, tree

Job = Callable[[str], tuple[PredictReport, Chosen]]


def open_backend(path: Path, backend: Any, *_: Any, **__: Any) -> Predictor:
    info = {"file": str(path), "sha256": sha256(path)}
    return red_predictor(precision=backend[1], info=info)


@pytest.fixture
def job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A run that begins in plain fp32, tries bf16 however few pictures there are, and finds it
    faster.
    """
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    monkeypatch.setattr(processor, "has_bf16", lambda: True)
    monkeypatch.setattr(auto, "WORTH", 1e-9)
    for module in (auto, fastest):
        monkeypatch.setattr(module, "open_backend", open_backend)
    measured = {PLAIN: 1.0, BF16: 0.5}, {PLAIN: 1.0, BF16: 1.0}
    monkeypatch.setattr(fastest, "measured", lambda *_: measured)

    def run(out: str) -> tuple[PredictReport, Chosen]:
        chosen = open_chosen("model.safetensors", ["pictures"], Path(out))
        return predict_files(chosen.predictor, ["pictures"], Path(out), chooser=chosen), chosen

    return run


def precisions(out: str) -> list[str]:
    entries = json.loads(Path(out, "manifest.json").read_text())
    return [entry["precision"] for _, entry in sorted(entries.items())]


def files(out: str) -> dict[str, bytes]:
    found = tree(Path(out))
    del found["manifest.json"]
    return found


def test_masks_made_before_the_choice_are_kept(job: Job) -> None:
    report, chosen = job("out")
    assert (report.written, report.settings["precision"]) == (6, "bf16")
    assert (chosen.choice.runtime, chosen.choice.precision) == BF16
    assert sorted(precisions("out")) == ["bf16"] * 3 + ["fp32"] * 3
    before = tree(Path("out"))
    report, chosen = job("out")
    assert (report.written, report.skipped, chosen.choice.precision) == (0, 6, "bf16")
    assert tree(Path("out")) == before
    # In another folder the remembered choice is used from the start.
    job("other")
    assert (precisions("other"), files("other")) == (["bf16"] * 6, files("out"))


def forget() -> None:
    for file in Path("cache/seenet/choices").iterdir():
        file.unlink()


@pytest.mark.parametrize("lost", [False, True], ids=["remembered", "cache lost"])
@pytest.mark.parametrize("moment", [1, 2, "trial", 4, 5])
def test_killed_and_run_again_it_leaves_what_one_run_leaves(
    job: Job, moment: int | str, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "RETIMED", 0)
    job("whole")
    forget()
    segment, calls, stop = batch._segment, iter(range(9)), raising(KeyboardInterrupt())
    with monkeypatch.context() as patch:
        if moment == "trial":
            patch.setattr(Speeds, "attempt", stop)
        else:
            patch.setattr(
                batch, "_segment", lambda *more: (stop if next(calls) == moment else segment)(*more)
            )
        with pytest.raises(KeyboardInterrupt):
            job("out")
    assert len(precisions("out")) < 6
    if lost:
        forget()
    job("out")
    assert tree(Path("out")) == tree(Path("whole"))


@pytest.mark.parametrize(("times", "precision"), [(2, "fp32"), (0.5, "bf16")])
def test_first_pictures_are_timed_again_only_where_much_is_left(
    job: Job, times: float, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was killed before it chose has left no times."""
    monkeypatch.setattr(auto, "RETIMED", times)
    first = [f"pictures/{place:02d}.png" for place in (1, 2, 3)]
    predict_files(open_backend(Path("model.safetensors"), PLAIN), first, Path("out"))
    report, _ = job("out")
    assert (report.written, report.skipped) == (3, 3)
    assert precisions("out") == [precision, "fp32", "fp32", "fp32", precision, precision]


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
def test_a_remembered_choice_starts_without_torch_and_the_folder_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_cache, "_export", exported)
    # The options of `seenet predict` are part of what a choice is remembered by; the process may
    # find bf16 here.
    speeds = known(
        {PLAIN: 1.0, ONNX: 2.0, OPENVINO: 1.5, BF16: 1.5, OPENVINO_BF16: "no bf16"}, tile="auto"
    )
    bundle_cache.bundle(speeds.path, "onnx", lambda: [])
    reports = []
    for count in (6, 8):
        draw_pictures(count)
        command = [sys.executable, "-c", COMMAND]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(done.stdout))
        assert "runtime onnx, precision fp32: " in done.stderr
    assert [(report["written"], report["skipped"]) for report in reports] == [(6, 0), (2, 6)]
    assert "2.00 times as fast" in reports[0]["choice"]["why"]
    assert all(report["runtime"].startswith("onnxruntime ") for report in reports)
