"""The harness itself, and a few tries of what is quick: what `make test-faults` does by the hundred."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults import table
from tests.faults.__main__ import is_chosen
from tests.faults.all import FAULTS
from tests.faults.fault import Attempt, Fault
from tests.faults.results import read, rows, verdict
from tests.faults.runner import ROOT, run

QUICK = "C1,C2,C3,C4,B.C2,B.C3,B.C4"


def odd(attempt: Attempt) -> None:
    attempt.note("tried")
    if attempt.number % 2:
        raise ValueError(f"{attempt.folder}/x: odd\nindeed")


def test_a_stopped_harness_goes_on_and_fails_are_kept(tmp_path: Path) -> None:
    results, made = tmp_path / "results.jsonl", []
    fault = Fault(
        "Q1", "odd numbers fail", 5, lambda attempt: (made.append(attempt.number), odd(attempt))[1]
    )
    run([fault], results, 2)
    results.write_text(
        results.read_text() + '{"fault": "Q1", "number": 2, "pas'
    )  # as a kill leaves it
    (row,) = rows([fault], read(results))
    assert verdict(row) == "under way, 3 to go"
    results.write_text(results.read_text() + "\n")
    run([fault], results)
    run([fault], results)
    assert made == [0, 1, 2, 3, 4]
    (row,) = rows([fault], read(results))
    assert (row["tries"], row["passed"], row["met"], row["notes"]) == (5, 3, False, {"tried": 5})
    assert row["errors"] == [
        "try 1: ValueError: FOLDER/x: odd indeed",
        "try 3: ValueError: FOLDER/x: odd indeed",
    ]
    assert "NOT MET" in table.text([row]) and "NOT MET" in table.markdown([row])
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob("fault-Q1-*"))


@pytest.mark.parametrize(
    ("passes", "expected"),
    [(True, "PASSES: the harness does not bite"), (False, "fails, as it must")],
)
def test_a_baseline_must_fail(tmp_path: Path, passes: bool, expected: str) -> None:
    fault = Fault(
        "B.Q",
        "",
        1,
        lambda attempt: None if passes else odd(Attempt(1, attempt.rng, attempt.folder)),
        must_fail=True,
    )
    run([fault], tmp_path / "results")
    (row,) = rows([fault], read(tmp_path / "results"))
    assert verdict(row) == expected


def test_what_cannot_be_tried_is_said_and_what_hangs_fails(tmp_path: Path) -> None:
    absent = Fault("Q2", "", 3, odd, needs=lambda: "no moon")
    slow = Fault("Q3", "", 1, lambda _: time.sleep(30), limit=1)
    run([absent, slow], tmp_path / "results")
    first, second = rows([absent, slow], read(tmp_path / "results"))
    assert (verdict(first), first["met"]) == ("not run: no moon", None)
    assert second["errors"] == ["try 0: TimeoutError: the try took longer than its limit"]


def test_the_committed_page_is_made_of_its_json() -> None:
    found = json.loads((ROOT / "docs" / "faults.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "faults.md").read_text(encoding="utf-8") == table.markdown(found)
    assert {row["fault"] for row in found} == {fault.id for fault in FAULTS}


def test_choice() -> None:
    assert len({fault.id for fault in FAULTS}) == len(FAULTS)
    assert (
        is_chosen("T1.real", "T1")
        and is_chosen("T10", "T")
        and is_chosen("C2", "T,C2")
        and is_chosen("X", "")
    )
    assert not is_chosen("T10", "T1") and not is_chosen("B.C2", "C")


@pytest.mark.skipif(sys.platform != "linux", reason="preloads a library, mounts a tmpfs")
def test_a_few_tries(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults", "--only", QUICK, "--tries", "3", "--results", str(tmp_path / "results"),
               "--table", str(tmp_path / "faults")]  # fmt: skip
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    found = {row["fault"]: row for row in json.loads((tmp_path / "faults.json").read_text())}
    tried = {name: row for name, row in found.items() if row["tries"]}
    assert {"C1", "C2.moment", "C4", "B.C2.moment", "B.C4"} <= tried.keys(), done.stderr
    for name, row in tried.items():
        assert (
            (row["passed"] < row["tries"]) if row["must_fail"] else (row["passed"] == row["tries"])
        ), (name, row["errors"])
    assert done.stdout.count("\n") == sum(is_chosen(name, QUICK) for name in found) + 1
