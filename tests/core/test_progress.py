"""Bars on a terminal, lines where there is none."""

import os
import pty
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from seenet.core import progress
from seenet.core.progress import bar, track

NESTED = """
from seenet.core.progress import bar
with bar("pictures", 2) as advance:
    for name in "ab":
        with bar("rows of " + name, 3, inner=True) as row:
            row(3)
        advance(note=name)
"""


def test_bars_within_bars_on_a_terminal() -> None:
    parent, child = pty.openpty()
    command = ["timeout", "60", sys.executable, "-c", NESTED]
    process = subprocess.Popen(command, stderr=child, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    os.close(child)
    shown = b""
    try:
        while part := os.read(parent, 4096):
            shown += part
    except OSError:  # Linux: the other end is closed
        pass
    os.close(parent)
    assert process.wait() == 0, shown
    assert b"2/2" in shown
    assert b"pictures" in shown
    assert b"rows of a" in shown
    assert b"rows of b" in shown
    # Not the lines of no terminal.
    assert b"rows of a:" not in shown


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", "letters", 5, 2)) == ["a", "b", "c"]
    with bar("pictures", 4) as advance:
        advance(3)
        assert "pictures" not in capsys.readouterr().err
        advance(note="street")
    # Not every step has a line, the last one has.
    assert re.fullmatch(r"pictures: 4/4, \d+ s, ETA 0 s, street\n", capsys.readouterr().err)


def test_what_is_left_goes_by_the_last_lines_pace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    with bar("pictures", 1000) as advance:
        for now in (100.0, *(100.0 + step for step in range(1, 31))):
            advance(1 if now == 100 else 10)
    lines = re.findall(r"(\d+)/1000, \d+ s, ETA (\d+) s", capsys.readouterr().err)
    # The first took long; since then there are ten a second.
    assert lines == [("1", "99900"), ("151", "85"), ("301", "70")]


@pytest.mark.parametrize(("every", "shown"), [(15.0, ""), (0.0, "tiles: 1/2 2/2 ")])
def test_short_work_within_other_work_has_no_lines(
    every: float, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", every)
    with bar("tiles", 2, inner=True) as advance:
        advance()
        advance()
    assert "".join(re.findall(r"^tiles: |\d/2 ", capsys.readouterr().err.replace(",", " "))) == shown


@pytest.mark.parametrize(("rank", "shown"), [("0", True), ("1", False)])
def test_of_several_processes_the_first_shows(
    rank: str, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert list(track("a", "letters", 1)) == ["a"]
    assert ("letters: 1/1" in capsys.readouterr().err) == shown
