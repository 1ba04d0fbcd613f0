"""A run's folder, and what a process keeps of it: nothing."""

import os
from pathlib import Path

import pytest

from seenet.core import locks
from seenet.training.run import open_run
from tests.training.test_trainer import recipe


def test_runs_leave_nothing_behind_in_their_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[dict[str, object]] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: registered.append(hooks))
    handles = len(list(Path("/dev/fd").iterdir()))
    for number in range(3):
        with open_run(tmp_path / str(number), recipe(), resume=False):
            assert locks._held
    assert not registered
    assert not locks._held
    assert len(list(Path("/dev/fd").iterdir())) == handles
