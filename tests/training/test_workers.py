"""Loader workers that are not forked: a script without a guard is one line, one with a guard trains."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.test_trainer import TINY, losses

ROOT = Path(__file__).parents[2]
SCRIPT = """
import multiprocessing
import seenet
from seenet.core.recipe_files import load_recipe
def work():
    multiprocessing.set_start_method({method!r})
    settings = load_recipe("shapes", {settings!r})
    print("steps:", seenet.train(settings, "run", device="cpu").steps)
{call}
"""
SETTINGS = [*TINY, "training.steps=2", "training.workers=2", "training.validate_every=0"]


def run(folder: Path, method: str, call: str) -> subprocess.CompletedProcess[str]:
    (folder / "mine.py").write_text(SCRIPT.format(method=method, settings=SETTINGS, call=call))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "mine.py"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_without_a_guard_is_told_what_to_add_and_then_trains(tmp_path: Path, method: str) -> None:
    done = run(tmp_path, method, "work()")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("Traceback") == 1
    last = done.stderr.strip().rpartition("\n")[2]
    assert last.startswith("seenet.core.errors.UsageError: ") and 'mine.py, line 9: needs `if __name__ == "__main__":`' in last
    # Mended it starts anew, without `resume`.
    done = run(tmp_path, method, 'if __name__ == "__main__":\n    work()')
    assert (done.returncode, done.stdout) == (0, "steps: 2\n"), done.stderr[-2000:]
    assert len(losses(tmp_path / "run")) == 2
