"""Interleaved times of several works, the memory of one, and a child process for a measurement."""

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LONG = 10.0
"""First passes that take this many seconds count as a round: their set-up is small beside it."""
SIDE = 2048
MATMUL_GFLOP = 2 * SIDE**3 / 1e9

Work = Callable[[], object]


def interleaved(
    works: Mapping[str, Work], *, seconds: float, least: int = 3, most: int = 30
) -> dict[str, Any]:
    """Run all works in rounds, each beginning with another work, for `seconds`.

    Args:
        least: Minimum number of rounds.
        most: Maximum number of rounds.

    Returns:
        `seconds`, a list for each work; `peak_mib`, the memory that each one's first pass adds to
        the process (that pass is not a round, unless one takes `LONG`); and `others`, the share of
        the machine's CPU time that other processes took.
    """
    names, peaks, first = list(works), {}, {}
    for name in names:
        started = time.perf_counter()
        peaks[name] = peak_mib(works[name])
        first[name] = time.perf_counter() - started
    times = {name: [first[name]] if max(first.values()) > LONG else [] for name in names}
    started, before = time.perf_counter(), _processor_times()
    while (done := min(map(len, times.values()))) < least or (
        done < most and time.perf_counter() - started < seconds
    ):
        for name in names[done % len(names) :] + names[: done % len(names)]:
            begun = time.perf_counter()
            works[name]()
            times[name].append(time.perf_counter() - begun)
    return {"seconds": times, "peak_mib": peaks, "others": _others(before)}


def peak_mib(work: Work) -> float:
    """Return the MiB that `work` adds at most to the resident memory; 0 where it is not Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        work()
        return 0.0
    # Freed memory goes back to the system first, or the work could take it unnoticed.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def matmul() -> Work:
    """Return a product of two fp32 matrices of 2048 x 2048, whose rate is the reference."""
    import torch

    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    out = torch.empty(SIDE, SIDE)
    return lambda: torch.mm(a, b, out=out)


def alone(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Return the result of `work(*arguments)` in a child process; {"error": ...} if it fails.

    The child is forked, which saves the imports. Nothing may have been computed in this process
    before: a fork does not copy torch's threads.
    """
    context = get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(there, work, arguments))
    child.start()
    there.close()
    try:
        found: dict[str, Any] = here.recv()
    except EOFError:
        found = {}
    child.join()
    return found or {
        "error": f"the process ended with {child.exitcode} (-9: killed, perhaps for want of memory)"
    }


def _in_child(
    pipe: Connection, work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]
) -> None:
    try:
        pipe.send(work(*arguments))
    except Exception as error:  # shown in the table; the other cases go on
        pipe.send({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})


def spread(values: list[float]) -> dict[str, float]:
    """Return median and quartiles (of fewer than four values minimum and maximum)."""
    low, _, high = (
        statistics.quantiles(values, n=4) if len(values) > 3 else (min(values), 0, max(values))
    )
    return {
        "median": significant(statistics.median(values)),
        "low": significant(low),
        "high": significant(high),
    }


def ratios(above: list[float], below: list[float]) -> dict[str, float]:
    """Return `spread` of above / below, by rounds: other work slows both in a round."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def significant(value: float) -> float:
    return float(f"{value:.4g}")


def _status(key: str) -> int:
    """Return a number of /proc/self/status, KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


def _processor_times() -> tuple[float, float]:
    """Return the busy seconds of all CPUs, and those of this process and its children."""
    stat = Path("/proc/stat")
    ticks = (
        [int(field) for field in stat.read_text(encoding="ascii").splitlines()[0].split()[1:9]]
        if stat.exists()
        else [0] * 8
    )
    busy = sum(ticks) - ticks[3] - ticks[4]  # idle, and waiting for a disk
    return busy / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


def _others(before: tuple[float, float]) -> float:
    busy, own = (now - then for now, then in zip(_processor_times(), before, strict=True))
    return round(max(0.0, busy - own) / max(busy, 1e-9), 3)
