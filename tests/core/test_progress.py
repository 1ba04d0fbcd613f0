"""Progress: bars on a terminal, lines elsewhere."""

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
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


def test_nested_bars_on_a_terminal() -> None:
    parent, child = pty.openpty()
    command = ["timeout", "60", sys.executable, "-c", NESTED]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stderr=child, env=environment)
    os.close(child)
    shown = b""
    with suppress(OSError):  # Linux: the other end is closed
        while part := os.read(parent, 4096):
            shown += part
    os.close(parent)
    assert process.wait() == 0, shown
    assert all(text in shown for text in (b"2/2", b"pictures", b"rows of a", b"rows of b"))
    assert b"rows of a:" not in shown  # the format without a terminal


def test_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", "letters", 5, 2)) == ["a", "b", "c"]
    with bar("pictures", 4) as advance:
        advance(3)
        assert "pictures" not in capsys.readouterr().err
        advance(note="street")
    assert re.fullmatch(r"pictures: 4/4, \d+ s, ETA 0 s, street\n", capsys.readouterr().err)


def test_the_eta_follows_the_pace_since_the_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    with bar("pictures", 1000) as advance:
        for now in (100.0, *(100.0 + step for step in range(1, 31))):
            advance(1 if now == 100 else 10)
    lines = re.findall(r"(\d+)/1000, \d+ s, ETA (\d+) s", capsys.readouterr().err)
    # The first took long; since then there are ten per second.
    assert lines == [("1", "99900"), ("151", "85"), ("301", "70")]


@pytest.mark.parametrize(("every", "shown"), [(15.0, []), (0.0, ["1/2", "2/2"])])
def test_short_inner_work_prints_no_lines(
    every: float,
    shown: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", every)
    with bar("tiles", 2, inner=True) as advance:
        advance()
        advance()
    assert re.findall(r"tiles: (\d/2)", capsys.readouterr().err) == shown


@pytest.mark.parametrize(("rank", "shown"), [("0", True), ("1", False)])
def test_only_the_first_rank_shows_progress(
    rank: str, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert list(track("a", "letters", 1)) == ["a"]
    assert ("letters: 1/1" in capsys.readouterr().err) == shown
