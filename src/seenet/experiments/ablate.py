"""`seenet ablate`: train every run of a plan in a process of its own."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from seenet.core.device import choose_device
from seenet.core.errors import BusyError, PartialError, Stopped, UsageError
from seenet.core.files import check_free, write_text
from seenet.core.recipe_files import dump, load_recipe
from seenet.experiments.plan import Plan, Run, read_json
from seenet.experiments.results import FILES, RESULTS, write_results
from seenet.training.run import changed_setting, stop_requests

log = logging.getLogger("seenet")

BUSY_WAIT_SECONDS = 60.0
"""Time between two tries of a run that another process holds; a try starts a process."""
POLL_SECONDS = 0.2


def states(plan: Plan) -> list[dict[str, Any]]:
    """Return the name and the state of each run; write nothing. UsageError as for `ablate`."""
    check_folder(plan)
    return [{"run": run.name, "state": run.state()} for run in plan.runs]


def ablate(plan: Plan, *, device: str = "auto", command: str | None = None) -> dict[str, Any]:
    """Train the runs that have not finished, and return the content of results.json.

    OUT/results.json, table.md, table.csv and plot.png are written after each run. The same call
    goes on after any of the errors.

    Args:
        plan: what to train.
        device: auto (one run a GPU where there are several), cpu, cuda or mps.
        command: quoted by the results.

    Raises:
        UsageError: the folder holds runs of other settings.
        DataError: the folder is a file, or holds files of the user's own under the results' names.
        PartialError: some runs failed, the others have finished.
        Stopped: a signal; every run has saved its state.
    """
    check_folder(plan)
    gpus = gpus_for(device)
    write_results(plan, {}, command)
    failed = train_all(plan, device, gpus, command)
    result = write_results(plan, failed, command)
    if failed:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in list(failed.items())[:3])
        raise PartialError(
            f"{plan.out}: {len(failed)} of {len(plan.runs)} runs failed, the others are done: "
            f"{reasons}; the same command tries them again"
        )
    return result


def check_folder(plan: Plan) -> None:
    """Refuse a folder with other results or with files of the user's own.

    Raises:
        UsageError: results of another kind or model, or a run of other settings.
        DataError: files of the user's own under the results' names.
    """
    path = plan.out / RESULTS
    before = read_json(path)
    if "rows" not in before:
        check_free([plan.out / name for name in FILES], overwrite=False)
    else:
        for key, now in {"unit": plan.unit, **plan.about}.items():
            if before.get(key) != now:
                raise UsageError(
                    f"{path}: {key} was {before.get(key)} and is now {now}; give another --out"
                )
    for run in plan.runs:
        recipe = run.folder / "recipe.yaml"
        if recipe.is_file() and (changed := changed_setting(load_recipe(recipe), run.recipe)):
            raise UsageError(
                f"{recipe}: {changed}; give another --out, or the settings of the runs in it"
            )


def gpus_for(device: str) -> list[str | None]:
    """Return the GPUs on which runs are trained side by side, as CUDA_VISIBLE_DEVICES names them.

    Where `device` is no choice of several GPUs it is [None]: one run at a time, on that device.
    """
    count = torch.cuda.device_count() if choose_device(device).type == "cuda" else 0
    if ":" in device or count < 2:
        return [None]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return [gpu.strip() for gpu in visible.split(",")]


def train_all(
    plan: Plan, device: str, gpus: Sequence[str | None], command: str | None
) -> dict[str, str]:
    """Train every run that has not finished, one at a time on each GPU; write results after each.

    An interrupted run resumes. A run that another process holds (a second `seenet ablate` in the
    folder, or a training that outlived a killed one) is left to it and tried again later.

    Args:
        plan: its runs are trained in their order.
        device, command: as for `ablate`.
        gpus: as `gpus_for` returns them.

    Returns:
        The reason of each run that failed, by its name.

    Raises:
        Stopped: a signal, after every run has saved its state.
    """
    runs = plan.runs
    waiting = [(0.0, run) for run in runs]
    failed: dict[str, str] = {}
    active: dict[str | None, tuple[Run, subprocess.Popen[bytes]]] = {}
    try:
        with stop_requests() as stop:
            while waiting or active:
                for gpu in gpus:
                    if gpu not in active and (run := _next_run(waiting)):
                        active[gpu] = run, _start(run, device, gpu)
                        log.info(
                            "%s: training, %d of %d runs finished; log: %s",
                            run.name,
                            sum(run.result() is not None for run in runs),
                            len(runs),
                            _log_path(run),
                        )
                time.sleep(POLL_SECONDS)
                for gpu, (run, process) in list(active.items()):
                    if (code := process.poll()) is None:
                        continue
                    del active[gpu]
                    if code == BusyError.exit_code:
                        log.info("%s: another process trains it; tried again later", run.name)
                        waiting.append((time.monotonic() + BUSY_WAIT_SECONDS, run))
                    elif code == 0 and run.result() is not None:
                        log.info("%s: finished", run.name)
                        write_results(plan, failed, command)
                    else:
                        failed[run.name] = _reason(code, run)
                        log.warning("%s: %s", run.name, failed[run.name])
                if stop.code:
                    for _, process in active.values():
                        process.terminate()
                    for _, process in active.values():
                        process.wait()
                    raise Stopped(
                        f"{plan.out}: stopped, every run has saved; the same command goes on",
                        stop.code,
                    )
    finally:
        # Runs are still active only after an error here. Their checkpoints are whole at any time.
        for _, process in active.values():
            process.kill()
    return failed


def _next_run(waiting: list[tuple[float, Run]]) -> Run | None:
    """Take the first run whose time has come; drop those that have finished, here or elsewhere."""
    for due, run in list(waiting):
        finished = run.result() is not None
        if finished or time.monotonic() >= due:
            waiting.remove((due, run))
            if not finished:
                return run
    return None


def _start(run: Run, device: str, gpu: str | None) -> subprocess.Popen[bytes]:
    """Start `seenet train` with the run's recipe, or resume the run."""
    recipe, log_path = run.folder.parent / "recipes" / f"{run.name}.yaml", _log_path(run)
    write_text(recipe, dump(run.recipe))
    log_path.parent.mkdir(parents=True, exist_ok=True)
    resume = ["--resume"] if (run.folder / "recipe.yaml").exists() else []
    command = ["train", str(recipe), "--out", str(run.folder), "--device", device, *resume]
    with log_path.open("ab") as stream:
        # In a session of its own: Ctrl-C in the terminal reaches this process alone, which asks
        # its runs to stop once. Not by `run_module`: the run must outlive a killed parent.
        return subprocess.Popen(
            [sys.executable, "-m", "seenet", *command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**os.environ, **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})},
            start_new_session=True,
        )


def _log_path(run: Run) -> Path:
    return run.folder.parent / "logs" / f"{run.name}.log"


def _reason(code: int, run: Run) -> str:
    if code == 0:
        return "ended without a score: every pixel of the val split is ignored"
    if code < 0:
        return f"killed by signal {-code}{' (out of memory?)' * (-code == signal.SIGKILL)}"
    log_text = _log_path(run).read_text(encoding="utf-8", errors="replace").strip()
    last = (log_text or "no message in its log").splitlines()[-1]
    return f"exit {code}: {last.removeprefix('seenet: ')}"
