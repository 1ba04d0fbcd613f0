"""Child processes: what they print, why they refuse, how they end."""

from pathlib import Path

import pytest

from seenet.core.child import REFUSED, Ended, run_module


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m own PROGRAM ARGUMENT...` runs the lines of PROGRAM."""
    (tmp_path / "own.py").write_text("import sys\nexec(sys.argv[1])\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("program", "expected", "how"),
    [
        ("print(sys.argv[2])", Ended(0, "a b\n", ""), "code 0"),
        ("print('x', file=sys.stderr); sys.exit('last')", Ended(1, "", "last"), "code 1"),
        ("import os; os.kill(os.getpid(), 9)", Ended(-9, "", ""), "signal 9"),
        ("from seenet.core.child import refuse; refuse('two\\nlines')", Ended(REFUSED, "", "two lines"), "code 4"),
        ("from seenet.core.child import refuse; refuse('later', 75)", Ended(75, "", "later"), "code 75"),
    ],
)
def test_how_it_ended(program: str, expected: Ended, how: str) -> None:
    found = run_module("own", program, "a b", timeout=60)
    assert (found, found.how) == (expected, how)


def test_one_that_takes_too_long_is_killed() -> None:
    with pytest.raises(TimeoutError):
        run_module("own", "import time; time.sleep(60)", timeout=0.5)


def test_open_files_are_inherited(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream:
        number = stream.fileno()
        assert run_module("own", "import os; os.write(int(sys.argv[2]), b'here')", str(number), timeout=60).code == 1
        assert run_module("own", "import os; os.write(int(sys.argv[2]), b'here')", str(number), timeout=60, pass_fds=[number]).code == 0
    assert (tmp_path / "file").read_text() == "here"
