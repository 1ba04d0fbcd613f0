"""The whole command: real trainings, killed and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seenet.cli import main
from tests.experiments.doubles import TINY


def command(out: Path, *arguments: str) -> list[str]:
    return ["ablate", "shapes", *TINY, "--out", str(out), "--device", "cpu", *arguments]


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_dry_run_lists_and_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    grid = ["--vary", "model.width=8,16", "model.refine_stride=4,8", "--seeds", "2", "--dry-run"]
    code, out, err = call(capsys, *command(tmp_path / "grid", *grid))
    assert code == 0, err
    assert out.splitlines()[0] == "seenet-width=8-refine_stride=4-seed-0: not started"
    assert out.splitlines()[-1] == "0 of 8 runs finished"
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "model.pout=1,2"], "nearest: p_out"),
        (["--vary", "model.width=8", "model.refin_stride=4,8"], "nearest: refine_stride"),
        (["--vary", "--seeds", "2"], "expected key=value"),
        (["--rows", "senet"], "nearest: seenet"),
    ],
)
def test_wrong_usage_is_met_first(capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str) -> None:
    code, _, err = call(capsys, *command(tmp_path / "out", *arguments))
    assert code == 2
    assert message in err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runner and training are killed without warning; the same command goes on from the checkpoint and ends with all rows."""
    settings = ["training.steps=20", "training.checkpoint_every=1", "--rows", "c,torchvision-deeplabv3", "--seeds", "1"]
    program = [sys.executable, "-m", "seenet", *command(tmp_path / "out", *settings)]
    first = subprocess.Popen(program, start_new_session=True)
    checkpoints = tmp_path / "out" / "baseline-seed-0" / "checkpoints"
    deadline = time.monotonic() + 300
    while not list(checkpoints.glob("step-*")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    # The training has a session of its own and outlives its runner.
    os.kill(int((checkpoints.parent / "lock").read_text().split()[-1]), signal.SIGKILL)
    code, out, err = call(capsys, *command(tmp_path / "out", *settings, "--json"))
    assert code == 0, err
    result = json.loads(out)
    assert result["complete"] and [row["row"] for row in result["rows"]] == ["baseline", "torchvision-deeplabv3"]
    assert all(row["images_per_s"] > 0 and row["miou"]["sd"] is None for row in result["rows"])
    assert result["protocol"]["data"] == "shapes" and "seenet" in result["command"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "baseline-seed-0" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 21))
    assert "resumed after step" in (tmp_path / "out" / "logs" / "baseline-seed-0.log").read_text()
    assert "one seed" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.slow
def test_stopped_by_a_signal_saves_first(tmp_path: Path) -> None:
    settings = ["training.steps=2000", "training.checkpoint_every=1000", "--rows", "c"]
    process = subprocess.Popen([sys.executable, "-m", "seenet", *command(tmp_path / "out", *settings)])
    metrics = tmp_path / "out" / "baseline-seed-0" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.is_file() and metrics.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    assert list((metrics.parent / "checkpoints").glob("step-*"))
    assert json.loads((metrics.parent / "exit.json").read_text())["0"]["code"] == 143
