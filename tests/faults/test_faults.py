"""The harness itself, and a few tries of each quick fault."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from tests.faults.__main__ import is_chosen
from tests.faults.fault import Attempt, Fault
from tests.faults.runner import page, read, row, run, verdict
from tests.faults.table import FAULTS
from tests.training import launching

QUICK = "C1,C2,C3,C4,B.C2,B.C3,B.C4"


def fails_if_odd(attempt: Attempt) -> None:
    attempt.note("tried")
    if attempt.number % 2:
        raise ValueError(f"{attempt.folder}/x: odd\nindeed")


def test_an_interrupted_harness_continues_and_keeps_failures(tmp_path: Path) -> None:
    results, fault = tmp_path / "results.jsonl", Fault("Q1", "", 5, fails_if_odd)
    run([fault], results, 2)
    made = results.read_text()
    results.write_text(made + '\n{"fault": "Q1", "number": 2, "pas')  # as a kill leaves it
    assert verdict(row(fault, read(results))) == "under way, 3 to go"
    run([fault], results)
    assert results.read_text().startswith(made)
    found = row(fault, read(results))
    assert (found["tries"], found["passed"], found["met"]) == (5, 3, False)
    assert found["notes"] == {"tried": 5}
    errors = [f"try {number}: ValueError: FOLDER/x: odd indeed" for number in (1, 3)]
    assert found["errors"] == errors
    assert "NOT MET" in page([found])
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob("fault-Q1-*"))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("Q2", "", 1, fails_if_odd, must_fail=True), "PASSES: the harness does not bite"),
        (Fault("Q3", "", 2, fails_if_odd, must_fail=True), "fails, as it must"),
        (Fault("Q4", "", 1, fails_if_odd, needs=lambda: "no moon"), "not run: no moon"),
        (Fault("Q5", "", 1, lambda _: time.sleep(30), limit=1), "NOT MET"),
    ],
)
def test_verdicts(tmp_path: Path, fault: Fault, expected: str) -> None:
    run([fault], tmp_path / "results")
    assert verdict(row(fault, read(tmp_path / "results"))) == expected


def test_the_committed_page_is_made_of_its_json() -> None:
    rows = json.loads((launching.ROOT / "docs" / "faults.json").read_text(encoding="utf-8"))
    assert (launching.ROOT / "docs" / "faults.md").read_text(encoding="utf-8") == page(rows)
    assert {one["fault"] for one in rows} == {fault.id for fault in FAULTS}


def test_faults_are_chosen_by_the_beginning_of_their_id() -> None:
    names = ["T1.call", "T10", "C2", "B.C2"]
    chosen = {
        only: [name for name in names if is_chosen(name, only)] for only in ("T1", "T,C2", "")
    }
    assert chosen == {"T1": names[:1], "T,C2": names[:3], "": names}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, preloads a library")
@pytest.mark.parametrize(
    ("only", "tries"),
    [
        (QUICK, 3),
        *(pytest.param(only, 2, marks=pytest.mark.slow) for only in ("T1", "T4", "T5,T6", "T8")),
    ],
)
def test_a_few_tries(tmp_path: Path, only: str, tries: int) -> None:
    results, page = str(tmp_path / "results"), str(tmp_path / "faults")
    options = ["--only", only, "--tries", str(tries), "--results", results, "--table", page]
    _, said = launching.run(sys.executable, "-m", "tests.faults", *options, seconds=1200)
    rows = [one for one in json.loads((tmp_path / "faults.json").read_text()) if one["tries"]]
    assert rows, said
    for one in rows:
        held = one["passed"] == one["tries"]
        assert held != one["must_fail"], (one["fault"], one["errors"], said)
