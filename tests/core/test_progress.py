"""Bars on a terminal, lines where there is none."""

import os
import pty
import subprocess
import sys

import pytest

from seenet.core.progress import bar, track

NESTED = """
from seenet.core.progress import bar, track
with bar("pictures", 2) as advance:
    for name in "ab":
        for row in track(range(3), "rows of " + name, 3):
            pass
        advance(note=name)
"""


def test_bars_within_bars_on_a_terminal() -> None:
    parent, child = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", NESTED], stderr=child, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    os.close(child)
    shown = b""
    try:
        while part := os.read(parent, 4096):
            shown += part
    except OSError:  # Linux: the other end is closed
        pass
    os.close(parent)
    assert process.wait(60) == 0, shown
    assert b"2/2" in shown
    assert b"pictures" in shown
    assert b"rows of a" in shown
    assert b"rows of b" in shown


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", "letters", 5, 2)) == ["a", "b", "c"]
    with bar("pictures", 4) as advance:
        advance(3)
        assert "pictures" not in capsys.readouterr().err
        advance(note="street")
    # Not every step has a line, the last one has.
    assert capsys.readouterr().err == "pictures: 4/4, 0 s, ETA 0 s, street\n"


@pytest.mark.parametrize(("rank", "shown"), [("0", True), ("1", False)])
def test_of_several_processes_the_first_shows(
    rank: str, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert list(track("a", "letters", 1)) == ["a"]
    assert ("letters: 1/1" in capsys.readouterr().err) == shown
