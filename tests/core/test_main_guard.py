"""A script without a main guard is refused before a process starts; others are let through."""

import subprocess
import sys
from pathlib import Path

import pytest

CALL = "check_main_guard('leave it', METHOD)"
GUARD = "if __name__ == '__main__':\n"
LOOP = f"def work():\n    {CALL}\nfor _ in range(2):\n    work()"
USUAL = (
    "import multiprocessing as m; usual = m.get_all_start_methods()[0]\n"
    f"try:\n    {CALL}\nexcept ValueError:\n    assert usual != 'fork'\n"
    "m.set_start_method('spawn')"
)
CASES = [
    (f"{GUARD}    {CALL}", "spawn", ""),
    (f"if '__main__' != __name__:\n    sys.exit()\n{CALL}", "spawn", ""),
    (f"if multiprocessing.parent_process() is None:\n    {CALL}", "spawn", ""),
    (f"{GUARD}    count = 1\nelse:\n    raise SystemExit\n{CALL}", "spawn", ""),
    (CALL, "fork", ""),
    (CALL, "spawn", "line 4"),
    (LOOP, "spawn", "line 7"),
    (f"if sys.argv:\n    {CALL}", "spawn", "line 5"),
    (f"{GUARD}    count = 1\n{CALL}", "spawn", "line 6"),
    (f"{CALL}\n{GUARD}    pass", "spawn", "line 4"),
    (f"multiprocessing.set_start_method('spawn')\n{CALL}", None, "line 5"),
    # The default method is used, and can still be set afterwards.
    (USUAL, None, ""),
]


@pytest.mark.parametrize(
    ("script", "method", "place", "command"),
    [*((*case, "mine.py") for case in CASES), (CALL, "forkserver", "line 4", "-m mine")],
)
def test_scripts(tmp_path: Path, script: str, method: str | None, place: str, command: str) -> None:
    head = "import multiprocessing, sys\nfrom seenet.core.main_guard import check_main_guard\n"
    (tmp_path / "mine.py").write_text(f"{head}METHOD = {method!r}\n{script}\n")
    program = [sys.executable, *command.split()]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    message = done.stderr.strip().rpartition("\n")[2]
    if place:
        assert message.startswith("seenet.core.errors.UsageError: ")
        assert f'mine.py, {place}: needs `if __name__ == "__main__":`' in message
    else:
        assert (done.returncode, message) == (0, "")


def test_an_interactive_program_is_let_through() -> None:
    program = f"from seenet.core.main_guard import check_main_guard; METHOD = 'spawn'; {CALL}"
    subprocess.run([sys.executable, "-c", program], check=True)
