"""Tries faults one after the other; what has an outcome already is not tried again."""

import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import numpy as np

from tests.faults.fault import Attempt, Fault
from tests.faults.results import Outcome, append, read

ROOT = Path(__file__).parents[2]


def run(faults: Sequence[Fault], path: Path, most: int | None = None) -> None:
    """Make all tries (at most `most` of each fault) that have no outcome in `path` yet."""
    done, commit, machine = read(path), current_commit(), this_machine()
    # What is passed over is said in the log, a thousand times.
    logging.getLogger("seenet").addHandler(logging.NullHandler())
    for fault in faults:
        todo = [
            number
            for number in range(fault.tries if most is None else min(fault.tries, most))
            if (fault.id, number) not in done
        ]
        if not todo:
            continue
        missing = fault.needs()
        if missing:
            print(f"{fault.id}: not run: {missing}", file=sys.stderr)
            continue
        for number in todo:
            outcome = attempt(fault, number, commit, machine)
            append(path, outcome)
            if not outcome.passed and not fault.must_fail:
                print(f"{fault.id} try {number}: {outcome.error}", file=sys.stderr, flush=True)
        print(f"{fault.id}: {len(todo)} tries made", file=sys.stderr, flush=True)


def attempt(fault: Fault, number: int, commit: str = "", machine: str = "") -> Outcome:
    """One try, in a new folder, within the fault's limit."""
    seed = np.random.SeedSequence([number, *fault.id.encode()])
    one = Attempt(
        number, np.random.default_rng(seed), Path(tempfile.mkdtemp(prefix=f"fault-{fault.id}-"))
    )
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(fault.limit)
    started, error = time.monotonic(), ""
    try:
        fault.run(one)
    except Exception as caught:
        if os.environ.get("SEENET_FAULTS_TRACE"):
            traceback.print_exc()
        error = f"{type(caught).__name__}: {' '.join(str(caught).replace(str(one.folder), 'FOLDER').split())}"[
            :400
        ]
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        seconds = time.monotonic() - started
        one.close()
    return Outcome(
        fault.id, number, not error, round(seconds, 3), error, one.notes, commit, machine
    )


def _too_long(_: int, __: FrameType | None) -> None:
    raise TimeoutError("the try took longer than its limit")


def current_commit() -> str:
    """Short hash, with a plus where files differ from it."""
    done = [
        subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        for words in _GIT
    ]
    return (
        done[0].stdout.strip() + ("+" if done[1].stdout.strip() else "")
        if not done[0].returncode
        else "unknown"
    )


_GIT = (
    ["rev-parse", "--short=10", "HEAD"],
    ["status", "--porcelain", "--untracked-files=no", "src", "tests"],
)


def this_machine() -> str:
    """Processor, cores, memory and system: its kind, not its name."""
    info = Path("/proc/cpuinfo")
    models = (
        [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if "model name" in line
        ]
        if info.exists()
        else []
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = models[0] if models else platform.machine()
    return f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
