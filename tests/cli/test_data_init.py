"""`seenet data init` asks on a terminal what the files do not tell, and only there."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.data.layouts import fill, save

INIT = [sys.executable, "-m", "seenet", "data", "init"]


@pytest.fixture
def two_kinds(tmp_path: Path) -> Path:
    """Pictures with two folders of masks that differ, and whose names say nothing."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        save(path, ids)
        other = tmp_path / "right" / path.name
        save(other, np.roll(ids, 20, axis=1))
        return ids

    fill(tmp_path, np.random.default_rng(0), mask="left/{id}.png", store=store)
    return tmp_path


@pytest.mark.parametrize(("answer", "chosen"), [("1", "left"), ("7\n2", "right")])
def test_a_question_on_a_terminal(two_kinds: Path, answer: str, chosen: str) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*INIT, two_kinds], stdin=theirs, stderr=theirs, stdout=subprocess.DEVNULL
    ) as process:
        os.write(ours, f"{answer}\n".encode())
        assert process.wait(120) == 0
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    os.close(theirs)
    assert "left" in shown and "right" in shown
    assert yaml.safe_load((two_kinds / "seenet.yaml").read_text())["masks"] == chosen


def test_without_a_terminal_or_an_answer_the_commands_are_printed(two_kinds: Path) -> None:
    done = subprocess.run([*INIT, two_kinds], stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 4
    assert b"--masks left" in done.stderr and b"--masks right" in done.stderr
    ours, theirs = pty.openpty()
    with subprocess.Popen([*INIT, two_kinds], stdin=theirs, stderr=theirs) as process:
        os.write(ours, b"\x04")  # the end of the input
        assert process.wait(120) == 4
    assert b"--masks left" in os.read(ours, 10_000)
    os.close(ours)
    os.close(theirs)
    assert not (two_kinds / "seenet.yaml").exists()
