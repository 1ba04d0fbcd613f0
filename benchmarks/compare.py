"""Lines 1 and 2: the contestants of a case side by side, as JSON values."""

from typing import Any

import torch

from benchmarks import contestants, inference, machine, training
from benchmarks.cases import Case
from benchmarks.measuring import MATMUL_GFLOP, alone, ratios, significant, spread
from seenet.model.summary import summarize

MEASURES = {"training": training.measure, "inference": inference.measure}


def compare(case: Case) -> dict[str, Any]:
    """Return times, images/s, GFLOP, memory, rate and ratio of each (docs/performance.md)."""
    about = {
        "line": case.line,
        "kind": case.kind,
        "backbone": case.backbone,
        "size": list(case.size),
        "batch": case.batch,
        "runtime": case.runtime,
        "precision": case.precision,
        "full": case.full,
    }
    if case.precision == "bf16" and not machine.has_bf16():
        return {**about, "skipped": "the processor has no bf16"}
    found = alone(MEASURES[case.kind], case)
    if "error" in found:
        return {**about, **found}
    seconds: dict[str, list[float]] = found["seconds"]
    rate = MATMUL_GFLOP / spread(seconds["matmul"])["median"]
    # A training step costs three forward passes: gradients of activations and of weights one each.
    passes = case.batch * (3 if case.kind == "training" else 1)
    rows = {}
    for name in contestants.CONTESTANTS:
        gflop = gflops(name, case)
        times = spread(seconds[name])
        rows[name] = {
            "seconds": times,
            "images_per_s": significant(case.batch / times["median"]),
            "gflop": round(gflop, 2),
            "peak_mib": round(found["peak_mib"][name]),
            "of_matmul": significant(passes * gflop / times["median"] / rate),
            "ratio": ratios(seconds["deeplabv3"], seconds[name]),
        }
    return {
        **about,
        "contestants": rows,
        "over_deeplabv3plus": ratios(seconds["deeplabv3plus"], seconds["seenet"]),
        "matmul_gflops": significant(rate),
        "rounds": len(seconds["seenet"]),
        "others": found["others"],
    }


def gflops(name: str, case: Case) -> float:
    """Return GFLOP of a forward pass of one image through the plain network."""
    with torch.device("meta"):
        return (
            sum(
                part.flops
                for part in summarize(contestants.network(name, case.backbone), *case.size)
            )
            / 1e9
        )
