"""Two processes under torchrun, of which one is killed, frozen or asked to stop: the other ends too, and nothing is left."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.training.launching import finish, start, torchrun
from tests.training.test_trainer import TINY, losses

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

PATIENCE = 400
"""Seconds, on a busy machine; the launcher alone gives a process that does not answer 30."""
SETTINGS = [*TINY, "training.validate_every=0", "training.steps=6"]


def left_over(run: Path) -> list[str]:
    """Processes that were started for `run` and are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(run).encode() in words:
            found.append(path.parent.name)
    return found


def steps(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in sorted((run / "checkpoints").iterdir())]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("what", ["SIGKILL", "SIGSTOP"])
def test_a_lost_rank_ends_the_job(tmp_path: Path, what: str, rank: int) -> None:
    """A killed one as torchrun ends it; for one that does not come the other waits as long as it was told, and says who it is."""
    run, settings = tmp_path / "run", ["training.workers=1", "training.timeout_minutes=0.5"]
    command = ["train", "shapes", *SETTINGS, *settings, "--out", str(run), "--device", "cpu"]
    process = start([*torchrun(2), "-m", "tests.training.faulty", f"{rank}:3", what, *command])
    said = finish(process, PATIENCE)
    assert process.returncode == 1
    ends = json.loads((run / "exit.json").read_text())
    assert ends[str(rank)]["code"] is None
    other = ends[str(1 - rank)]
    if what == "SIGKILL":
        # The launcher's SIGTERM may come before the failed operation.
        assert other["code"] in (75, 143)
    else:
        assert other["code"] == 75
        assert other["reason"].startswith(f"rank {rank} does not answer")
        assert f"seenet: {other['reason']}" in said
    assert left_over(run) == []
    assert steps(run)[-1] == 3
    # Nobody holds the run: one process alone goes on with it.
    process = start([sys.executable, "-m", "seenet", *command, "--resume"])
    assert "resumed after step 3" in finish(process, PATIENCE)
    assert process.returncode == 0
    assert len(losses(run)) == 6


@pytest.mark.parametrize("whom", ["launcher", "rank"])
def test_sigterm_ends_both_after_the_step(tmp_path: Path, whom: str) -> None:
    run = tmp_path / "run"
    many = ["training.steps=5000", "training.checkpoint_every=5000", "training.workers=1"]
    process = start([*torchrun(2), "-m", "seenet", "train", "shapes", *SETTINGS, *many, "--out", str(run), "--device", "cpu"])
    end = time.monotonic() + PATIENCE
    while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").read_bytes().count(b"\n") < 3:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    ranks = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(ranks) == 2
    os.kill(process.pid if whom == "launcher" else ranks[1], signal.SIGTERM)
    said = finish(process, PATIENCE)
    assert process.returncode == 1
    made = len(losses(run))
    assert steps(run) == [made]
    assert said.count(f"seenet: {run}: stopped after step {made}, saved; go on with --resume") == 2
    assert {rank: end["code"] for rank, end in json.loads((run / "exit.json").read_text()).items()} == {"0": 143, "1": 143}
    assert left_over(run) == []
