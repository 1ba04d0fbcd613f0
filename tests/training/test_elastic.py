"""torchrun --max-restarts: a killed rank comes back, and the run ends as if nothing had been."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seenet.core.errors import DataError
from seenet.training.run import open_run
from tests.training.launching import finish, start, torchrun
from tests.training.test_trainer import TINY, losses, recipe

PATIENCE = 500


@pytest.mark.slow
def test_killed_ranks_come_back_to_the_same_weights(tmp_path: Path) -> None:
    """First one rank is killed, after the restart the other; nobody says --resume."""
    settings = ["training.checkpoint_every=2", "training.validate_every=0", "training.workers=1"]
    command = ["train", "shapes", *TINY, *settings, "--device", "cpu", "--out"]
    process = start([*torchrun(2), "-m", "seenet", *command, str(tmp_path / "whole")])
    finish(process, PATIENCE)
    assert process.returncode == 0
    process = start(
        [*torchrun(2, "--max-restarts", "2"), "-m", "tests.training.faulty", "1:3,0:5", "SIGKILL", *command, str(tmp_path / "cut")]
    )
    said = finish(process, PATIENCE)
    assert process.returncode == 0, said[-3000:]
    assert [f"resumed after step {step}" in said for step in (2, 4)] == [True, True]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert {end["code"] for end in json.loads((tmp_path / "cut" / "exit.json").read_text()).values()} == {0}
    for name in ("model.safetensors", "model-last.safetensors"):
        first, second = load_file(tmp_path / "whole" / name), load_file(tmp_path / "cut" / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def begin(folder: Path) -> None:
    """Start a run without --resume, or go on with it where that is granted, and take a step."""
    with open_run(folder / "run", recipe(), resume=False):
        (folder / "run" / "metrics.jsonl").write_text('{"step": 1}\n')


def test_a_restarted_job_goes_on_and_another_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-7")
    begin(tmp_path)
    begin(tmp_path)
    for name in ("job-8", "none"):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
        with pytest.raises(DataError, match="go on with --resume"):
            begin(tmp_path)
    # A job that was refused is refused again when torchrun restarts it.
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(DataError, match="go on with --resume"):
        begin(tmp_path)


def test_without_a_name_a_job_is_known_by_its_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    begin(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    begin(tmp_path)
    monkeypatch.setattr("os.getppid", lambda: 1)
    with pytest.raises(DataError, match="go on with --resume"):
        begin(tmp_path)


def test_restarted_before_its_first_step_it_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    for _ in range(2):
        with open_run(tmp_path / "run", recipe(), resume=False):
            pass
