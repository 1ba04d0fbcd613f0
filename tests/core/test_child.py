"""Child processes: output, refusal, exit codes, time-out, and inherited files."""

from pathlib import Path

import pytest

from seenet.core.child import REFUSED, Ended, run_module

WRITE = "import os; os.write(int(sys.argv[2]), b'here')"


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
        (
            "from seenet.core.child import refuse; refuse('two\\nlines')",
            Ended(REFUSED, "", "two lines"),
            "code 4",
        ),
        (
            "from seenet.core.child import refuse; refuse('later', 75)",
            Ended(75, "", "later"),
            "code 75",
        ),
    ],
)
def test_how_it_ended(program: str, expected: Ended, how: str) -> None:
    found = run_module("own", program, "a b", timeout=60)
    assert (found, found.how) == (expected, how)


def test_a_process_past_its_timeout_is_killed() -> None:
    with pytest.raises(TimeoutError):
        run_module("own", "import time; time.sleep(60)", timeout=0.5)


@pytest.mark.parametrize(("passed", "text"), [(True, "here"), (False, "")])
def test_only_passed_files_are_inherited(tmp_path: Path, passed: bool, text: str) -> None:
    with (tmp_path / "file").open("w") as stream:
        fd = stream.fileno()
        ended = run_module("own", WRITE, str(fd), timeout=60, pass_fds=[fd] if passed else [])
    assert (ended.code, (tmp_path / "file").read_text()) == (int(not passed), text)
