"""`python -m tests.faults`: try every fault by its number, print the table, exit 1 where a bar is not met.

    python -m tests.faults [--only C] [--tries 3] [--results build/faults.jsonl] [--again] [--table docs/faults]

A try that has an outcome in the results is not made again, so that a stopped harness goes on.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from tests.faults import preload, table
from tests.faults.all import FAULTS
from tests.faults.results import read, rows
from tests.faults.runner import ROOT, run


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="id or beginning of one: C, T4, T4.launcher; several with commas"
    )
    parser.add_argument("--tries", type=int, help="at most so many of each; 0: the table alone")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "faults.jsonl")
    parser.add_argument(
        "--again", action="store_true", help="forget the outcomes of the chosen faults first"
    )
    parser.add_argument(
        "--table",
        type=Path,
        help="write the page and its JSON as PATH.md and PATH.json, of all faults",
    )
    parser.add_argument("--list", action="store_true", help="say what would be tried, and stop")
    arguments = parser.parse_args()
    chosen = [fault for fault in FAULTS if is_chosen(fault.id, arguments.only)]
    if not chosen:
        parser.error(
            f"--only {arguments.only}: no such fault; choose from {', '.join(fault.id for fault in FAULTS)}"
        )
    if arguments.list:
        print("\n".join(f"{fault.id:22} {fault.tries:5}  {fault.what}" for fault in chosen))
        return 0
    if arguments.again and arguments.results.exists():
        names = {fault.id for fault in chosen}
        lines = arguments.results.read_text(encoding="utf-8").splitlines(keepends=True)
        arguments.results.write_text(
            "".join(line for line in lines if json.loads(line)["fault"] not in names),
            encoding="utf-8",
        )
    run(chosen, arguments.results, arguments.tries)
    outcomes = read(arguments.results)
    found = rows(chosen, outcomes)
    print(table.text(found))
    if arguments.table:
        whole = rows(FAULTS, outcomes)
        arguments.table.with_suffix(".json").write_text(
            json.dumps(whole, indent=1) + "\n", encoding="utf-8"
        )
        arguments.table.with_suffix(".md").write_text(table.markdown(whole), encoding="utf-8")
    return int(
        any(row["met"] is False or (row["met"] is None and not row["not_run"]) for row in found)
    )


def is_chosen(name: str, only: str) -> bool:
    """`T1` is T1 and T1.anything, not T10."""
    return not only or any(
        re.match(re.escape(part) + r"(?<!\d(?=\d))", name) for part in only.split(",")
    )


if __name__ == "__main__":
    preload.start_again()
    sys.exit(main())
