"""A lock is one process's: others wait or are refused, and a forked child neither keeps it nor changes it."""

import os
from pathlib import Path

import pytest

from seenet.core import locks
from seenet.core.errors import BusyError
from seenet.core.locks import locked


def busy(path: Path) -> bool:
    """Whether another opening of the file is refused."""
    with path.open("a") as stream:
        try:
            with locked(stream.fileno(), busy="held by someone"):
                return False
        except BusyError as error:
            return str(error) == "held by someone"


def test_held_while_the_block_lasts(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a") as stream, locked(stream.fileno()):
        assert busy(path)
    assert not busy(path)


def test_some_may_share_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        path.open("a") as one,
        path.open("a") as other,
        locked(one.fileno(), shared=True, busy="held by someone"),
    ):
        with locked(other.fileno(), shared=True, busy="held by someone"):
            assert busy(path)
        assert busy(path)


@pytest.mark.parametrize("early", [False, True], ids=["while it is held", "just before"])
def test_a_child_that_lives_on_does_not_keep_it(tmp_path: Path, early: bool) -> None:
    path = tmp_path / "lock"
    ready, say_ready = os.pipe()
    end, say_end = os.pipe()

    def fork() -> int:
        child = os.fork()
        if not child:
            os.close(say_end)
            os.write(say_ready, b"!")
            os.read(end, 1)
            os._exit(0)
        assert os.read(ready, 1) == b"!"
        return child

    with path.open("a") as stream:
        child = fork() if early else 0
        with locked(stream.fileno()):
            child = child or fork()
            assert busy(path)
    try:
        assert not busy(path)
    finally:
        os.close(say_end)
        assert os.waitpid(child, 0)[1] == 0
        for handle in (ready, say_ready, end):
            os.close(handle)


def test_a_child_that_goes_on_neither_frees_nor_breaks_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a") as stream:
        with locked(stream.fileno()):
            if child := os.fork():
                assert os.waitpid(child, 0)[1] == 0
                assert busy(path)
        if not child:
            # It left the block as its parent will, and its handle is still one that can be closed.
            stream.close()
            os._exit(0)
    assert not locks._held
