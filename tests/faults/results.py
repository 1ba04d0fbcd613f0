"""Results: a line of JSON a try, appended as it ends; from them the rows of the table."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.faults.fault import Fault

SHOWN = 3
"""Errors and notes that a row quotes."""


@dataclass(frozen=True)
class Outcome:
    """How one try ended; `machine` and `commit` say where."""

    fault: str
    number: int
    passed: bool
    seconds: float
    error: str
    notes: list[str]
    commit: str
    machine: str


def append(path: Path, outcome: Outcome) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


def read(path: Path) -> dict[tuple[str, int], Outcome]:
    """The last outcome of each try; a line that a kill cut short is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            outcome = Outcome(**json.loads(line))
        except (ValueError, TypeError):
            continue
        found[outcome.fault, outcome.number] = outcome
    return found


def rows(faults: Sequence[Fault], outcomes: dict[tuple[str, int], Outcome]) -> list[dict[str, Any]]:
    """One row a fault: planned tries, tries made, passed, whether the bar is met (None: not all tried), and where."""
    return [
        _row(
            fault,
            [outcome for (name, number), outcome in sorted(outcomes.items()) if name == fault.id],
        )
        for fault in faults
    ]


def _row(fault: Fault, outcomes: list[Outcome]) -> dict[str, Any]:
    passed = sum(outcome.passed for outcome in outcomes)
    missing = fault.needs() if not outcomes else ""
    complete = len(outcomes) >= fault.tries
    notes = Counter(note for outcome in outcomes for note in outcome.notes)
    return {
        "fault": fault.id,
        "what": fault.what,
        "planned": fault.tries,
        "tries": len(outcomes),
        "passed": passed,
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
        "must_fail": fault.must_fail,
        "met": (passed < len(outcomes) if fault.must_fail else passed == len(outcomes))
        if complete
        else None,
        "not_run": missing or ("" if outcomes else "not tried"),
        "notes": dict(sorted(notes.items())),
        "errors": [
            f"try {outcome.number}: {outcome.error}" for outcome in outcomes if not outcome.passed
        ][:SHOWN],
        "commits": sorted({outcome.commit for outcome in outcomes}),
        "machines": sorted({outcome.machine for outcome in outcomes}),
    }


def verdict(row: dict[str, Any]) -> str:
    """What stands in the table's last column."""
    if row["not_run"]:
        return f"not run: {row['not_run']}"
    if row["met"] is None:
        return f"under way, {row['planned'] - row['tries']} to go"
    if row["must_fail"]:
        return "fails, as it must" if row["met"] else "PASSES: the harness does not bite"
    return "met" if row["met"] else "NOT MET"
