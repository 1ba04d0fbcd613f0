"""Make the tries one after the other, keep their outcomes as JSON lines, and format the table."""

import json
import logging
import os
import platform
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from traceback import extract_tb
from typing import Any

import numpy as np
from benchmarks.machine import commit

from seenet.core import processor
from tests.faults.fault import Attempt, Fault

HEAD = """# Fault injection

`make test-faults TABLE=1` writes this page and [faults.json](faults.json). The code of each fault
is in `tests/faults/`.

- Each try injects one fault: a kill, a full disk, a flipped byte, a hostile file.
- A row is met if every try passed.
- `B` rows are the known-bad baseline: a plain `torch.save` loop goes through the same tries. It
  must fail some of them.
- Seconds are wall-clock time.
"""

Outcome = dict[str, Any]
"""Fault, number, passed, seconds, error, notes, commit and machine of one try."""
Row = dict[str, Any]
"""The outcomes of one fault together."""


def read(path: Path) -> dict[tuple[str, int], Outcome]:
    """Read the last outcome of each try; skip a line that a kill cut short."""
    outcomes = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            outcome = json.loads(line)
            outcomes[outcome["fault"], outcome["number"]] = outcome
    return outcomes


def run(faults: Sequence[Fault], path: Path, most: int | None = None) -> None:
    """Make all tries (at most `most` of each fault) that have no outcome in `path` yet."""
    done, where = read(path), {"commit": commit(), "machine": machine()}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Otherwise warnings about damaged checkpoints would be printed a thousand times.
    logging.getLogger("seenet").addHandler(logging.NullHandler())
    signal.signal(signal.SIGALRM, _too_long)
    for fault in faults:
        tries = range(fault.tries)[:most]
        todo = [number for number in tries if (fault.id, number) not in done]
        missing = fault.needs() if todo else ""
        for number in [] if missing else todo:
            outcome = attempt(fault, number) | where
            with path.open("a", encoding="utf-8") as file:
                # A line of its own, also after one that a kill cut short.
                file.write("\n" + json.dumps(outcome))
            if not outcome["passed"] and not fault.must_fail:
                print(f"{fault.id} try {number}: {outcome['error']}", file=sys.stderr, flush=True)
        if todo:
            result = f"not run: {missing}" if missing else f"{len(todo)} tries made"
            print(f"{fault.id}: {result}", file=sys.stderr, flush=True)


def attempt(fault: Fault, number: int) -> Outcome:
    """Make one try in a new folder, within the time limit of the fault."""
    rng = np.random.default_rng(np.random.SeedSequence([number, *fault.id.encode()]))
    one = Attempt(number, Path(mkdtemp(prefix=f"fault-{fault.id}-")).resolve(), rng)
    started, error = time.monotonic(), ""
    signal.alarm(fault.limit)
    try:
        fault.run(one)
    except Exception as caught:
        # An assertion without a message is its own: the line of source.
        message = str(caught) or extract_tb(caught.__traceback__)[-1].line or ""
        words = message.replace(str(one.folder), "FOLDER").split()
        error = f"{type(caught).__name__}: {' '.join(words)}"[:400]
    finally:
        signal.alarm(0)
        seconds = round(time.monotonic() - started, 3)
        one.close()
    outcome = {"fault": fault.id, "number": number, "passed": not error, "seconds": seconds}
    return {**outcome, "error": error, "notes": one.notes}


def _too_long(*_: object) -> None:
    raise TimeoutError("the try took longer than its limit")


def machine() -> str:
    """Describe processor, cores, memory and system, without the name of the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{processor.fields().get('model name') or platform.machine()}, {os.cpu_count()} cores, "
        f"{memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
    )


def row(fault: Fault, outcomes: dict[tuple[str, int], Outcome]) -> Row:
    """Return the row of a fault; `met` is None until all planned tries are made."""
    made = [outcome for (name, _), outcome in sorted(outcomes.items()) if name == fault.id]
    failed = [outcome for outcome in made if not outcome["passed"]]
    met = bool(failed) if fault.must_fail else not failed
    return {
        "fault": fault.id,
        "what": fault.what,
        "planned": fault.tries,
        "tries": len(made),
        "passed": len(made) - len(failed),
        "seconds": round(sum(outcome["seconds"] for outcome in made), 1),
        "must_fail": fault.must_fail,
        "met": met if len(made) >= fault.tries else None,
        "not_run": "" if made else fault.needs() or "not tried",
        "notes": dict(sorted(Counter(note for one in made for note in one["notes"]).items())),
        "errors": [f"try {outcome['number']}: {outcome['error']}" for outcome in failed[:3]],
        "commits": sorted({outcome["commit"] for outcome in made}),
        "machines": sorted({outcome["machine"] for outcome in made}),
    }


def verdict(row: Row) -> str:
    """Return the last column of the table."""
    if row["not_run"]:
        return f"not run: {row['not_run']}"
    if row["met"] is None:
        return f"under way, {row['planned'] - row['tries']} to go"
    if row["must_fail"]:
        return "fails, as it must" if row["met"] else "PASSES: the harness does not bite"
    return "met" if row["met"] else "NOT MET"


def page(rows: Sequence[Row]) -> str:
    """Format docs/faults.md: machines, commits, table, situations of the tries, failures."""
    machines = sorted({machine for row in rows for machine in row["machines"]})
    commits = sorted({commit for row in rows for commit in row["commits"]})
    parts = [HEAD, f"Machine: {'; '.join(machines)}.", "", f"Commits: {', '.join(commits)}.", ""]
    parts += ["| fault | what is done | tries | passed | seconds | verdict |", "|---" * 6 + "|"]
    parts += [
        f"| {row['fault']} | {row['what']} | {row['tries']} | {row['passed']} | "
        f"{row['seconds']:.0f} | {verdict(row)} |"
        for row in rows
    ]
    parts += ["", "## Situations", "", "How often each situation occurred in the tries:", ""]
    parts += [
        f"- {row['fault']}: " + ", ".join(f"{note} {count}" for note, count in row["notes"].items())
        for row in rows
        if row["notes"]
    ]
    failures = [f"- {row['fault']}, {error}" for row in rows for error in row["errors"]]
    return "\n".join([*parts, "", "## Failures", "", *failures]) + "\n"
