"""`seenet ablate`: train every row with every seed, each in a process of its own, one after the other or one a GPU."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from seenet.core.device import choose_device
from seenet.core.errors import BusyError, DataError, PartialError, Stopped, UsageError
from seenet.core.files import check_free, replacing, write_text
from seenet.core.recipe_files import dump, load_recipe
from seenet.experiments.plan import Plan, Run, is_finished, state
from seenet.experiments.results import as_csv, markdown, outcome, plot
from seenet.training.run import difference
from seenet.training.signals import stop_requests

RESULTS = "results.json"
TABLES = ("table.md", "table.csv", "plot.png")
log = logging.getLogger("seenet")
BUSY = BusyError.exit_code
BUSY_WAIT_SECONDS = 60.0
"""A try costs the start of a process; that the run is finished is seen at once."""
POLL_SECONDS = 0.2


def states(plan: Plan) -> list[dict[str, Any]]:
    """Each run and how far it is; nothing is written. UsageError where a folder holds a run of other settings."""
    check_folder(plan)
    return [{"run": run.name, "state": state(run)} for run in plan.runs]


def ablate(plan: Plan, *, device: str = "auto", command: str | None = None) -> dict[str, Any]:
    """Train what is missing and write OUT/results.json, table.md, table.csv and plot.png, anew after each run; returns the results.

    Raises UsageError where a folder holds a run of other settings; DataError where OUT is a file; PartialError where runs failed, the
    others being done; Stopped after a signal. The same command goes on in each case.
    """
    check_folder(plan)
    if plan.out.exists() and not plan.out.is_dir():
        raise DataError(f"{plan.out}: a file, expected a folder or nothing; give another --out")
    places = slots(device)
    plan.out.mkdir(parents=True, exist_ok=True)
    _write(plan, {}, command)
    failed = run_all(plan.runs, plan.out, places, lambda: _write(plan, {}, command))
    result = _write(plan, failed, command)
    if failed:
        named = "; ".join(f"{name} ({reason})" for name, reason in list(failed.items())[:3])
        raise PartialError(
            f"{plan.out}: {len(failed)} of {len(plan.runs)} runs failed, the others are done: {named}; the same command tries them again"
        )
    return result


def _write(plan: Plan, failed: dict[str, str], command: str | None) -> dict[str, Any]:
    result = outcome(plan, failed=failed, command=command)
    # First, since by it the others are known as written here.
    write_text(plan.out / RESULTS, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    write_text(plan.out / "table.md", markdown(result))
    write_text(plan.out / "table.csv", as_csv(result))
    with replacing(plan.out / "plot.png") as temporary:
        temporary.write_bytes(plot(result))
    return result


def check_folder(plan: Plan) -> None:
    """UsageError where the folder holds results of another kind, on another model, or a run of other settings; DataError where it holds
    files of the user's own in the results' places.
    """
    path = plan.out / RESULTS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not (isinstance(found, dict) and "rows" in found):
        check_free([plan.out / name for name in (RESULTS, *TABLES)], overwrite=False)
    else:
        for key, now in {"unit": plan.unit, **plan.about}.items():
            before = found.get(key, "row" if key == "unit" else None)
            if before != now:
                raise UsageError(f"{path}: {key} was {before} and is now {now}; give another --out")
    for run in plan.runs:
        _check_recipe(run)


def _check_recipe(run: Run) -> None:
    path = run.folder / "recipe.yaml"
    if path.is_file():
        found = difference(load_recipe(path), run.recipe)
        if found:
            raise UsageError(f"{path}: {found}; give another --out, or the settings of the runs that are there")


@dataclass(frozen=True)
class Slot:
    """Where one run at a time is trained: its --device, and what its environment adds."""

    device: str
    environment: dict[str, str] = field(default_factory=dict)


def slots(device: str) -> list[Slot]:
    """One a GPU where `device` leaves the choice and there are several, else one. UsageError: a device that is not there."""
    where = choose_device(device)
    if where.type != "cuda" or ":" in device or torch.cuda.device_count() < 2:
        return [Slot(device)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    return [Slot("cuda", {"CUDA_VISIBLE_DEVICES": name.strip()}) for name in names]


def run_all(runs: list[Run], out: Path, places: list[Slot], after_each: Callable[[], object]) -> dict[str, str]:
    """Train what is not finished; returns why for each run that failed. `after_each` is called when one more is finished.

    A run goes on where it was interrupted. One that another process holds (another `seenet ablate` in the same folder, or a training that
    outlived a runner that was killed) is left to it and waited for. Raises Stopped after a signal, when every run under way has saved.
    """
    waiting, failed = deque(run for run in runs if not is_finished(run)), dict[str, str]()
    held: dict[str, float] = {}
    active: dict[int, tuple[Run, subprocess.Popen[bytes]]] = {}
    total, signalled = len(runs), False
    try:
        with stop_requests() as stop:
            while waiting or active:
                for place, slot in enumerate(places):
                    run = _next(waiting, held) if place not in active and not stop.code else None
                    if run is not None:
                        active[place] = (run, _start(run, out, slot))
                        done = sum(map(is_finished, runs))
                        log.info("%s: training, %d of %d runs finished; log: %s", run.name, done, total, _log_of(run, out))
                for place, (run, process) in list(active.items()):
                    code = process.poll()
                    if code is None:
                        continue
                    del active[place]
                    if code == BUSY:
                        if run.name not in held:
                            log.info("%s: another process trains it; waiting for that one", run.name)
                        held[run.name] = time.monotonic() + BUSY_WAIT_SECONDS
                        waiting.append(run)
                    elif code == 0 and is_finished(run):
                        log.info("%s: finished", run.name)
                        after_each()
                    elif not stop.code:
                        failed[run.name] = _reason(code, _log_of(run, out))
                        log.warning("%s: %s", run.name, failed[run.name])
                if stop.code and not signalled:
                    signalled = True
                    for _, process in active.values():
                        process.send_signal(signal.SIGTERM)
                if stop.code and not active:
                    raise Stopped(f"{out}: stopped, every run under way has saved; the same command goes on", stop.code)
                time.sleep(POLL_SECONDS)
    finally:
        # Only where something went wrong here is a run still under way; its checkpoints are whole whenever it ends.
        for _, process in active.values():
            process.kill()
    return failed


def _next(waiting: deque[Run], held: dict[str, float]) -> Run | None:
    """The first run that is worth a try now; those that ended elsewhere are dropped."""
    for run in list(waiting):
        if is_finished(run):
            waiting.remove(run)
        elif time.monotonic() >= held.get(run.name, 0):
            waiting.remove(run)
            return run
    return None


def _start(run: Run, out: Path, slot: Slot) -> subprocess.Popen[bytes]:
    recipe = out / "recipes" / f"{run.name}.yaml"
    write_text(recipe, dump(run.recipe))
    command = [sys.executable, "-m", "seenet", "train", str(recipe), "--out", str(run.folder), "--device", slot.device]
    if (run.folder / "recipe.yaml").exists():
        command.append("--resume")
    log_path = _log_of(run, out)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as stream:
        # A session of its own: Ctrl-C in the terminal reaches this process alone, which tells its runs to stop, once.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env={**os.environ, **slot.environment}, start_new_session=True
        )


def _log_of(run: Run, out: Path) -> Path:
    return out / "logs" / f"{run.name}.log"


def _reason(code: int, log_path: Path) -> str:
    if code == 0:
        return "ended without a score: every pixel of the val split is ignored"
    if code < 0:
        return f"killed by signal {-code}" + (" (out of memory?)" if -code == signal.SIGKILL else "")
    lines = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log_path.is_file() else []
    return f"exit {code}: {lines[-1].removeprefix('seenet: ') if lines else 'no word in its log'}"
