"""A run: its folder, who holds it, its recipe, how it ended, and the signals that end it."""

import json
import logging
import os
import platform
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType

import torch
from safetensors import SafetensorError

from seenet import __version__
from seenet.core.errors import DataError, SeenetError, Terminated, UsageError
from seenet.core.files import remove_leftovers, write_text
from seenet.core.locks import locked
from seenet.core.recipe_files import dump, load_recipe, stage_recipes
from seenet.core.settings import Recipe
from seenet.evaluation.heartbeat import naming_lost

log = logging.getLogger("seenet")

METRICS = "metrics.jsonl"

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")
"""The packages whose versions a run notes: what its numbers depend on."""

START_FILES = {"recipe.yaml", METRICS, "checkpoints", "tensorboard"}
"""Files that a run has before its first step."""

REPLACED_FILES = ("recipe.yaml", "model.safetensors", "model-last.safetensors", "val.json")
"""Files that are replaced whole; a kill may leave half of a new one under a hidden name."""

UNDER_WAY = "under way, or killed"

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}

MAY_DIFFER = {"training": {"workers", "checkpoint_every", "keep"}}
"""Settings that a resumed run may change: they change nothing of what is computed."""


@contextmanager
def open_run(out: Path, recipe: Recipe, *, resume: bool, rank: int = 0) -> Iterator[Path]:
    """Hold the run in the folder `out` while the block runs, and write to `exit.json` how it ended.

    Rank 0 creates the folder or, resuming, checks that the recipe is the same. A run that ended
    before its first step starts anew either way. A job that torchrun or a scheduler restarts
    resumes by itself.

    Raises:
        BusyError: Another process holds the run.
        DataError: There is a run without `resume`, or none with it.
        UsageError: The recipe differs from the run's.
    """
    if rank == 0:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            ours = (out / "exit.json").exists()
            lock = (out / "lock").open("a+")
        with lock, _locked(lock.fileno(), out) as before:
            _start_or_resume(out, recipe, resume or (_is_same_job(before) and has_steps(out)), ours)
            # Only now: a restart of a job that was refused here must be refused again.
            _write_holder(lock.fileno(), _job())
            remove_leftovers(out / name for name in REPLACED_FILES)
            with _exit_recorded(out, rank):
                yield out
    else:
        with _exit_recorded(out, rank):
            yield out


@contextmanager
def _locked(handle: int, out: Path) -> Iterator[str]:
    """Hold the lock and write into it who holds it; yield what its last holder wrote."""
    # The kernel releases the lock of a process that dies, so no lock is ever stale.
    before = (out / "lock").read_text(encoding="utf-8").strip()
    holder = before or "another process"
    with locked(handle, busy=f"{out}: busy, held by {holder}; wait for it, or give another --out"):
        _write_holder(handle, _job() if _is_same_job(before) else "")
        yield before


def _write_holder(handle: int, job: str) -> None:
    """Write into the lock file who holds the run."""
    os.ftruncate(handle, 0)
    os.write(handle, f"host {socket.gethostname()} pid {os.getpid()}{job}\n".encode())


def _job() -> str:
    """Name this process's torchrun job, the same after a restart: its id, or else its launcher."""
    job = os.environ.get("TORCHELASTIC_RUN_ID")
    if job is None:
        return ""
    return f" launcher {os.getppid()}" if job == "none" else f" job {job}"


def _is_same_job(before: str) -> bool:
    """Report whether `before`, the last holder, was this job, now restarted."""
    return bool(_job()) and before.endswith(_job())


def _start_or_resume(out: Path, recipe: Recipe, resume: bool, ours: bool) -> None:
    """Write the recipe of a new run, or check that of the run to resume.

    `ours` says that an earlier start left its exit.json here: what else it left may then be
    replaced. A recipe of the user's own may not.
    """
    path = out / "recipe.yaml"
    if path.exists() and has_steps(out):
        if not resume:
            raise DataError(f"{out}: a run is there already; go on with --resume, or give another --out")
        before = load_recipe(path)
        found = changed_setting(before, recipe)
        if found:
            raise UsageError(f"{path}: {found}; resume with the same settings, or start another run with --out")
        return
    if resume and not (ours and path.exists()):
        raise DataError(f"{path}: no run to resume here; start it without --resume")
    left = {"lock", "exit.json"} | (START_FILES | {folder.name for folder in stage_folders(out, recipe)} if ours else set())
    # Hidden ones are what a killed start leaves of a file half written.
    others = sorted(entry.name for entry in out.iterdir() if entry.name not in left and entry.name[0] != ".")
    if others:
        raise DataError(f"{out}: holds {others[0]} but no run; give a new or empty folder with --out")
    # First, so that a recipe that a killed start leaves is known as its own.
    _write_exit(out, 0, None, UNDER_WAY)
    with writing(out):
        write_text(path, dump(recipe))


def origin(device: torch.device, command: str | None) -> dict[str, str | None]:
    """Describe what a model was computed with: command, device, versions."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {"command": command, "device": str(device), "version": __version__, "python": platform.python_version(), **versions}


def has_steps(out: Path) -> bool:
    """Report whether a step was ever made here, or in one of the stages here."""
    metrics = out / METRICS
    steps = (metrics.exists() and metrics.stat().st_size > 0) or any((out / "checkpoints").glob("step-*"))
    return steps or any(has_steps(folder) for folder in out.glob("[0-9]*-*") if folder.is_dir())


def stage_folders(out: Path, recipe: Recipe) -> list[Path]:
    """List the run folders of a recipe's stages, in order: OUT/1-NAME, OUT/2-NAME, ..."""
    return [out / f"{number}-{name}" for number, name in enumerate(recipe.stages, start=1)]


def changed_setting(before: Recipe, now: Recipe) -> str:
    """Name the first setting by which a resumed run would compute something else.

    Returns:
        `key was A and is now B`, or an empty text where there is none.
    """
    if before.stages or now.stages:
        earlier, later = stage_recipes(before), stage_recipes(now)
        if list(earlier) != list(later):
            had, have = (", ".join(names) or "none" for names in (earlier, later))
            return f"stages were {had} and are now {have}"
        return next((f"stages.{name}.{found}" for name in later if (found := changed_setting(earlier[name], later[name]))), "")
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    for section, values in new.items():
        if not isinstance(values, dict):
            values, old[section] = {section: values}, {section: old[section]}
        for key, value in values.items():
            was, given = old[section].get(key), value
            if key == "start_from" and was and given:
                # Seen from another folder, or moved: nothing is read there any more.
                was, given = Path(was).parts[-2:], Path(given).parts[-2:]
            if key not in MAY_DIFFER.get(section, set()) | {"description"} and was != given:
                return f"{section}.{key} was {old[section].get(key)} and is now {value}"
    return ""


@contextmanager
def _exit_recorded(out: Path, rank: int) -> Iterator[None]:
    """Write to `exit.json` how the block ended: the exit code and the reason of this rank."""
    # What an earlier process left here must not speak for this one, should it be killed.
    _write_exit(out, rank, None, UNDER_WAY)
    code, reason = 0, "done"
    try:
        with naming_lost(lambda lost: _write_exit(out, rank, lost.exit_code, str(lost))):
            yield
    except SeenetError as error:
        code, reason = error.exit_code, str(error)
        raise
    except (KeyboardInterrupt, Terminated) as error:
        code, reason = (error.exit_code, "terminated") if isinstance(error, Terminated) else (130, "interrupted")
        raise
    except BaseException as error:
        code, reason = 1, f"{type(error).__name__}: {error}"
        raise
    finally:
        _write_exit(out, rank, code, reason)


def _write_exit(out: Path, rank: int, code: int | None, reason: str) -> None:
    path = out / "exit.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        # A lock of its own: the file is replaced, and the run's lock is the first rank's.
        with (out / ".exit.lock").open("a") as lock, locked(lock.fileno()):
            entries = {**_read_exits(path), str(rank): {"code": code, "reason": reason}}
            write_text(path, json.dumps(entries, indent=1))
    except OSError as error:
        # Such as a full disk, which is the reason that must come through.
        log.warning("%s: cannot be written (%s)", path, error)


def _read_exits(path: Path) -> dict[str, object]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an error of writing in the block into a DataError of one line, with folder and reason.

    safetensors has an error of its own for a full disk.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        what = f"{folder}: cannot be written ({error})"
        raise DataError(f"{what}; make room or give another --out; earlier checkpoints are whole, for --resume") from None


class IdleSignal(BaseException):
    """A signal came while no step was under way."""


class StopRequest:
    """Whether a signal asked to stop: `code` is 0 until then, and the exit code afterwards."""

    def __init__(self) -> None:
        self.code = 0
        self._idle = False

    def handle(self, number: int, _: FrameType | None) -> None:
        if self.code == 130 and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C: now
        self.code = EXIT_CODES[signal.Signals(number)]
        if self._idle:
            # Once: what comes after it is under way again.
            self._idle = False
            raise IdleSignal

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Raise `IdleSignal` where a signal comes in the block: no step is under way in it."""
        self._idle = True
        try:
            yield
        finally:
            self._idle = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGTERM and Ctrl-C in the block, so that a run can end after the step under way.

    Python gives signals to the main thread alone: in another thread nothing ever asks to stop.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        log.info("not in the main thread: SIGTERM and Ctrl-C do not end this after a step, what is saved is the last checkpoint")
        yield request
        return
    before = {number: signal.signal(number, request.handle) for number in EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stop_signals(_: int) -> None:
    """Ignore stop signals in a loader worker: the trainer, which still needs it, answers them."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Hold signals back in the block; in a worker forked in it, until the worker ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
