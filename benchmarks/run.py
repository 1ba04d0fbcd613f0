"""Measure missing results and print the table: `python -m benchmarks.run [--full] [--only PART]`.

Each result is measured in its own process and is one file in benchmarks/results/KIND, by the kind
of CPU. Results of the same code, on the same CPU and with as many threads, are not measured again,
unless with --anew: an interrupted run continues where it was.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm  # noqa: F401  (before the first fork, so that no child imports it again)
import torch

from benchmarks import auto, daily, growth, machine, memory, scales, startup
from benchmarks.bars import table
from benchmarks.cases import CASES
from benchmarks.compare import compare
from benchmarks.measuring import alone
from seenet.core.files import write_text

Measured = Callable[[], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all sizes and runtimes, and growth")
    parser.add_argument("--only", default="", help="results whose name contains this")
    parser.add_argument("--anew", action="store_true", help="measure existing results again")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="start nothing after this time"
    )
    parser.add_argument("--out", type=Path, default=machine.RESULTS / machine.kind())
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # of trainers on noise
    started, late = time.monotonic(), []
    for name, work in works(full=options.full):
        path = options.out / f"{name}.json"
        if options.only not in name or (is_done(path) and not options.anew):
            continue
        if time.monotonic() - started > 60 * options.minutes:
            late.append(name)
            continue
        begun, about = time.monotonic(), machine.provenance()
        found = work()
        result = {
            "name": name,
            **found,
            "took": round(time.monotonic() - begun, 1),
            "provenance": about,
        }
        write_text(path, json.dumps(result, indent=1) + "\n")
        outcome = found.get("error") or found.get("skipped") or "done"
        print(f"{time.monotonic() - started:6.0f} s  {name}: {outcome}", file=sys.stderr)
    print(table(options.out))
    if late:
        print(
            f"no time was left for {', '.join(late)}; the same command continues with them",
            file=sys.stderr,
        )


def works(*, full: bool) -> Iterator[tuple[str, Measured]]:
    """Yield the name of each result and its measurement; long ones come last."""
    cases = [case for case in CASES if full or not case.full]
    for case in cases:
        if not case.long:
            yield case.name, lambda case=case: compare(case)
    yield "auto", lambda: {"line": 3, **alone(auto.measure)}
    for case in (memory.TRAINING, memory.PREDICTION):
        yield (
            f"memory-{case.name}",
            lambda case=case: {"line": 4, "kind": case.kind, **memory.measure(case)},
        )
    yield "scales", lambda: {"line": 5, **alone(scales.measure)}
    yield "loader", lambda: {"line": 6, **alone(daily.loader)}
    yield "predict", lambda: {"line": 6, **alone(daily.predict)}
    yield "startup", _startup
    for case in cases:
        if case.long:
            yield case.name, lambda case=case: compare(case)
    if full:
        for axis, values in growth.AXES.items():
            for value in values:
                yield (
                    f"growth-{axis}-{value}",
                    lambda axis=axis, value=value: growth.measure(axis, value),
                )


def _startup() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return {"line": 7, **alone(startup.measure, folder)}


def is_done(path: Path) -> bool:
    """Tell whether there is a result of the same code on such a machine."""
    if not path.exists():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    about = found["provenance"]
    same = (about["sources"], about["processor"], about["threads"]) == (
        machine.sources(),
        machine.processor(),
        torch.get_num_threads(),
    )
    return same and "error" not in found


if __name__ == "__main__":
    os.chdir(machine.ROOT)
    main()
