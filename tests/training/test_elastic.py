"""torchrun --max-restarts: a killed rank comes back, and the run ends as an uninterrupted one."""

from pathlib import Path

import pytest

from tests.training.launching import run, torchrun
from tests.training.tiny import TINY, exit_codes, losses, same_models


@pytest.mark.slow
def test_killed_ranks_come_back_to_the_same_weights(tmp_path: Path) -> None:
    """First one rank is killed, after the restart the other; nobody says --resume."""
    settings = ["training.checkpoint_every=2", "training.validate_every=0", "training.workers=1"]
    command = ["train", "shapes", *TINY, *settings, "--device", "cpu", "--out"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(*torchrun(2), "-m", "seenet", *command, str(whole))[0] == 0
    launcher = torchrun(2, "--max-restarts", "2")
    kills = ["-m", "tests.training.patched", "strike", "1:4:SIGKILL,0:4:SIGKILL"]
    code, said = run(*launcher, *kills, *command, str(cut))
    assert code == 0, said[-3000:]
    assert all(f"resumed after step {step}" in said for step in (2, 4))
    assert losses(cut) == losses(whole)
    assert exit_codes(cut) == {"0": 0, "1": 0}
    assert same_models(cut, whole)
