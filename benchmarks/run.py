"""Measure what is not there yet, and print the table: `python -m benchmarks.run [--full] [--only PART] [--anew]`.

Each case runs in a process of its own and leaves one file in benchmarks/results. What is there from the same code, on the same processor
and with as many threads, is not measured again: an interrupted run goes on where it was.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm  # noqa: F401  (before the first fork, so that no child imports it again)
import torch

from benchmarks import contestants, inference, machine, training
from benchmarks.bars import table
from benchmarks.cases import CASES, Case
from benchmarks.measuring import MATMUL_GFLOP, alone, ratios, significant, spread
from seenet.core.files import write_text
from seenet.model.summary import summarize

RESULTS = machine.ROOT / "benchmarks" / "results"
MEASURES = {"training": training.measure, "inference": inference.measure}

Measured = Callable[[], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all sizes and runtimes, and growth")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--anew", action="store_true", help="measure again what is there")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    started = time.monotonic()
    todo = [(name, work) for name, work in works(full=options.full) if options.only in name]
    for name, work in todo:
        path = options.out / f"{name}.json"
        if not options.anew and is_done(path):
            continue
        begun, about = time.monotonic(), machine.provenance()
        found = work()
        result = {"name": name, **found, "took": round(time.monotonic() - begun, 1), "provenance": about}
        write_text(path, json.dumps(result, indent=1) + "\n")
        print(f"{time.monotonic() - started:6.0f} s  {name}: {found.get('error') or found.get('skipped') or 'done'}", file=sys.stderr)
    print(table(options.out))


def works(*, full: bool) -> Iterator[tuple[str, Measured]]:
    """Name of the result, and what measures it."""
    for case in CASES:
        if full or not case.full:
            yield case.name, lambda case=case: compare(case)


def compare(case: Case) -> dict[str, Any]:
    """The contestants of a case as JSON values: see docs/performance.md for what the numbers are."""
    about = {"line": case.line, "kind": case.kind, "backbone": case.backbone, "size": list(case.size), "batch": case.batch,
             "runtime": case.runtime, "precision": case.precision, "full": case.full}  # fmt: skip
    if case.precision == "bf16" and not machine.has_bf16():
        return {**about, "skipped": "the processor has no bf16"}
    found = alone(MEASURES[case.kind], case)
    if "error" in found:
        return {**about, **found}
    seconds: dict[str, list[float]] = found["seconds"]
    rate = MATMUL_GFLOP / spread(seconds["matmul"])["median"]
    # A training step is three forward passes: the gradients of activations and of weights cost one each.
    passes = case.batch * (3 if case.kind == "training" else 1)
    rows = {}
    for name in contestants.CONTESTANTS:
        gflop = gflops(name, case)
        times = spread(seconds[name])
        rows[name] = {
            "seconds": times, "images_per_s": significant(case.batch / times["median"]), "gflop": round(gflop, 2),
            "peak_mib": round(found["peak_mib"][name]), "of_matmul": significant(passes * gflop / times["median"] / rate),
            "ratio": ratios(seconds["deeplabv3"], seconds[name]),
        }  # fmt: skip
    return {**about, "contestants": rows, "over_deeplabv3plus": ratios(seconds["deeplabv3plus"], seconds["seenet"]),
            "matmul_gflops": significant(rate), "rounds": len(seconds["seenet"]), "others": found["others"]}  # fmt: skip


def gflops(name: str, case: Case) -> float:
    """Of a forward pass of one image through the plain network, two operations a multiply-add."""
    with torch.device("meta"):
        return sum(part.flops for part in summarize(contestants.network(name, case.backbone), *case.size)) / 1e9


def is_done(path: Path) -> bool:
    """Whether a result is there that the same code gave on such a machine."""
    if not path.exists():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    about = found["provenance"]
    same = (about["sources"], about["processor"], about["threads"]) == (machine.sources(), machine.processor(), torch.get_num_threads())
    return same and "error" not in found


if __name__ == "__main__":
    os.chdir(machine.ROOT)
    main()
