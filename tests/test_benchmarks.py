"""The benchmarks run as they stand there, and the bars that do not depend on the machine's speed hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_counting_costs_little_beside_the_network(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/boundaries.py", "--repetitions", "6", "--threads", "1", "--out", str(tmp_path / "found.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("holds") == 2, done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["size"] == [360, 480]
    assert found["widths"] == [1, 3, 5, 10, 21, 30, 40]
    assert 0 < found["share_of_forward"]["matrix"] < found["share_of_forward"]["bands"]
    assert found["processor"]
    assert found["torch"]
