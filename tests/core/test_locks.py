"""Locks: others wait or are refused, and a forked child neither keeps nor frees them."""

import os
import signal
from pathlib import Path

import pytest

from seenet.core import locks
from seenet.core.errors import BusyError
from seenet.core.locks import locked


def busy(path: Path) -> bool:
    """Return whether another opening of the file is refused."""
    with path.open("a") as stream:
        try:
            with locked(stream.fileno(), busy="held by someone"):
                return False
        except BusyError as error:
            return str(error) == "held by someone"


def test_a_lock_lasts_as_long_as_its_block(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("a") as stream:
        with locked(stream.fileno()):
            assert busy(tmp_path / "lock")
        assert not busy(tmp_path / "lock")


@pytest.mark.parametrize("early", [False, True], ids=["while it is held", "just before"])
def test_a_living_child_does_not_keep_the_lock(tmp_path: Path, early: bool) -> None:
    path = tmp_path / "lock"

    def fork() -> int:
        child = os.fork()
        if not child:
            signal.pause()
        return child

    with path.open("a") as stream:
        child = fork() if early else 0
        with locked(stream.fileno()):
            child = child or fork()
            held = busy(path)
    freed = not busy(path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert held and freed


def test_a_child_that_leaves_the_block_does_not_free_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a") as stream:
        with locked(stream.fileno()):
            if child := os.fork():
                assert os.waitpid(child, 0)[1] == 0
                assert busy(path)
        if not child:
            stream.close()  # fails if the lock broke the child's descriptor
            os._exit(0)
    assert not locks._held
