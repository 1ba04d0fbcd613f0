"""Inject every fault, print the table of results, and exit with 1 if a promise was not kept.

    python -m tests.faults [--only C] [--tries 3] [--results FILE] [--again] [--table docs/faults]

A try that has an outcome in the results is not repeated, so an interrupted run continues.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from tests.faults import preload
from tests.faults.runner import page, read, row, run, verdict
from tests.faults.table import FAULTS


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", default="", help="faults by id or its beginning, with commas: C,T4,T8.frozen")
    add("--tries", type=int, help="make at most so many tries of each fault; 0: print the table")
    add("--results", type=Path, default=Path("build/faults.jsonl"), help="file of outcomes")
    add("--again", action="store_true", help="forget the outcomes of the chosen faults first")
    add("--table", type=Path, help="write a page of all faults as PATH.md and PATH.json")
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if is_chosen(fault.id, options.only)]
    if not chosen:
        known = ", ".join(fault.id for fault in FAULTS)
        parser.error(f"--only {options.only}: no such fault; choose from {known}")
    if options.again and options.results.exists():
        names = {fault.id for fault in chosen}
        kept = [one for one in read(options.results).values() if one["fault"] not in names]
        options.results.write_text("".join("\n" + json.dumps(one) for one in kept))
    run(chosen, options.results, options.tries)
    outcomes = read(options.results)
    rows = [row(fault, outcomes) for fault in chosen]
    for one in rows:
        tries = f"{one['passed']} of {one['tries']} tries passed"
        print(f"{one['fault']:12} {tries:28} {one['seconds']:6.0f} s  {verdict(one)}")
    if options.table:
        every = [row(fault, outcomes) for fault in FAULTS]
        options.table.with_suffix(".json").write_text(json.dumps(every, indent=1) + "\n")
        options.table.with_suffix(".md").write_text(page(every))
    return int(any(not (one["met"] or one["not_run"]) for one in rows))


def is_chosen(name: str, only: str) -> bool:
    """Return whether an id is chosen: `T1` chooses T1 and T1.call, but not T10."""
    return any(re.match(re.escape(part) + r"(?<!\d(?=\d))", name) for part in only.split(","))


if __name__ == "__main__":
    preload.start_again()
    sys.exit(main())
