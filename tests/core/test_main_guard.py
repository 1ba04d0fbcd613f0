"""A script without a guard is told of it before a process is started; one with a guard, and what is not run again, is let through."""

import subprocess
import sys
from pathlib import Path

import pytest

UNGUARDED = "check_main_guard('leave it', METHOD)"
WITHIN = "def work():\n    check_main_guard('leave it', METHOD)\nfor _ in range(2):\n    work()"
SCRIPTS = {
    "if __name__ == '__main__':\n    check_main_guard('leave it', METHOD)": "",
    "if '__main__' != __name__:\n    sys.exit()\ncheck_main_guard('leave it', METHOD)": "",
    "if multiprocessing.parent_process() is None:\n    check_main_guard('leave it', METHOD)": "",
    UNGUARDED: "line 4",
    WITHIN: "line 7",
    f"if sys.argv:\n    {UNGUARDED}": "line 5",
    f"if __name__ == '__main__':\n    count = 1\n{UNGUARDED}": "line 6",
    "if __name__ == '__main__':\n    count = 1\nelse:\n    raise SystemExit\ncheck_main_guard('leave it', METHOD)": "",
    f"{UNGUARDED}\nif __name__ == '__main__':\n    pass": "line 4",
}


def run(script: str, tmp_path: Path, method: str, *, module: bool = False) -> str:
    (tmp_path / "mine.py").write_text(
        f"import multiprocessing, sys\nfrom seenet.core.main_guard import check_main_guard\nMETHOD = {method}\n{script}\n"
    )
    command = ["-m", "mine"] if module else ["mine.py"]
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert bool(done.returncode) == bool(done.stderr)
    return done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts(tmp_path: Path, script: str) -> None:
    said, where = run(script, tmp_path, "'spawn'"), SCRIPTS[script]
    if not where:
        assert said == ""
        return
    assert said.startswith("seenet.core.errors.UsageError: ")
    assert f'mine.py, {where}: needs `if __name__ == "__main__":`' in said and said.endswith("or leave it")


def test_a_module_is_run_again_too(tmp_path: Path) -> None:
    assert "mine.py, line 4" in run(UNGUARDED, tmp_path, "'forkserver'", module=True)


def test_what_is_forked_does_not_run_it_again(tmp_path: Path) -> None:
    assert run(UNGUARDED, tmp_path, "'fork'") == ""


def test_the_usual_method_counts_and_is_not_settled(tmp_path: Path) -> None:
    usual = "import multiprocessing as m; usual = m.get_all_start_methods()[0]\n"
    script = f"{usual}try:\n    check_main_guard('leave it')\nexcept ValueError:\n    assert usual != 'fork'\nm.set_start_method('spawn')"
    assert run(script, tmp_path, "None") == ""
    assert "mine.py, line 5" in run("multiprocessing.set_start_method('spawn')\n" + UNGUARDED, tmp_path, "None")


def test_what_is_typed_is_not_run_again() -> None:
    program = "from seenet.core.main_guard import check_main_guard; check_main_guard('leave it', 'spawn')"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr == ""
