"""The folder of a run: its lock, its recipe, its exit record; and the signals that stop a run."""

import json
import logging
import os
import platform
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError

from seenet import __version__
from seenet.core.errors import DataError, SeenetError, Terminated, UsageError
from seenet.core.files import remove_leftovers, write_text, writing_to
from seenet.core.locks import locked
from seenet.core.recipe_files import dump, load_recipe, stage_recipes
from seenet.core.settings import Recipe
from seenet.distributed import naming_lost

log = logging.getLogger("seenet")

METRICS = "metrics.jsonl"

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")
"""Packages whose versions a run records, since its numbers depend on them."""

START_FILES = {"recipe.yaml", METRICS, "checkpoints", "tensorboard"}
"""Files that a run has before its first step."""

REPLACED_FILES = ("recipe.yaml", "model.safetensors", "model-last.safetensors", "val.json")
"""Files that are replaced as a whole; a kill may leave a partial one under a hidden name."""

RUNNING = "under way, or killed"

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}

MAY_DIFFER = {"workers", "checkpoint_every", "keep", "timeout_minutes"}
"""Settings of `training` that a resumed run may change, since no result depends on them."""


@contextmanager
def open_run(out: Path, recipe: Recipe, *, resume: bool, rank: int = 0) -> Iterator[None]:
    """Hold the run in the folder `out` during the block; record in `exit.json` how it ended.

    Rank 0 creates the folder or, to resume, checks that the recipe is the same. A run that ended
    before its first step starts anew in both cases. A job that torchrun or a scheduler restarts
    resumes without being asked.

    Raises:
        BusyError: Another process holds the run.
        DataError: There is a run without `resume`, or none with it.
        UsageError: The recipe differs from the run's.
    """
    with (
        _held(out, recipe, resume) if rank == 0 else nullcontext(),
        _exit_recorded(out, rank),
    ):
        yield


@contextmanager
def _held(out: Path, recipe: Recipe, resume: bool) -> Iterator[None]:
    """Lock the folder, create the run or check that it can be resumed, and keep the lock."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        started_before = (out / "exit.json").exists()
        lock = (out / "lock").open("a+")
    with lock:
        before = (out / "lock").read_text(encoding="utf-8").strip()
        holder, job = before or "another process", _job()
        # The kernel releases the lock of a process that dies, so no lock is ever stale.
        with locked(
            lock.fileno(), busy=f"{out}: busy, held by {holder}; wait for it, or give another --out"
        ):
            restarted = bool(job) and before.endswith(job)
            _write_holder(lock.fileno(), job if restarted else "")
            resume = resume or (restarted and has_steps(out))
            _start_or_resume(out, recipe, resume, started_before)
            # Only now: a job that was refused must be refused again when it is restarted.
            _write_holder(lock.fileno(), job)
            remove_leftovers(out / name for name in REPLACED_FILES)
            yield


def _write_holder(handle: int, job: str) -> None:
    """Write into the lock file who holds the run."""
    os.ftruncate(handle, 0)
    os.write(handle, f"host {socket.gethostname()} pid {os.getpid()}{job}\n".encode())


def _job() -> str:
    """Return the name of this torchrun job, the same after a restart: its id or its launcher."""
    job = os.environ.get("TORCHELASTIC_RUN_ID")
    if job is None:
        return ""
    return f" launcher {os.getppid()}" if job == "none" else f" job {job}"


def _start_or_resume(out: Path, recipe: Recipe, resume: bool, started_before: bool) -> None:
    """Write the recipe of a new run, or check that of the run to resume.

    `started_before`: An earlier start left its exit.json here, so its other files may be replaced.
    A recipe that the user put there may not.
    """
    path = out / "recipe.yaml"
    if path.exists() and has_steps(out):
        if not resume:
            raise DataError(
                f"{out}: contains a run already; continue it with --resume, or give another --out"
            )
        changed = changed_setting(load_recipe(path), recipe)
        if changed:
            raise UsageError(
                f"{path}: {changed}; resume with the same settings, or give another --out"
            )
        return
    if resume and not (started_before and path.exists()):
        raise DataError(f"{path}: no run to resume here; start it without --resume")
    own = {"lock", "exit.json"}
    if started_before:
        own |= START_FILES | {folder.name for folder in stage_folders(out, recipe)}
    # Hidden files are partial ones that a killed start left.
    others = sorted(
        entry.name for entry in out.iterdir() if entry.name not in own and entry.name[0] != "."
    )
    if others:
        raise DataError(f"{out}: contains {others[0]} but no run; give a new or empty --out folder")
    # First, so that a recipe that a killed start leaves is recognized as its own.
    _write_exit(out, 0, None, RUNNING)
    with writing(out):
        write_text(path, dump(recipe))


def origin(device: torch.device, command: str | None) -> dict[str, str | None]:
    """Return what a model was computed with: command, device, versions."""
    return {
        "command": command,
        "device": str(device),
        "version": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def has_steps(out: Path) -> bool:
    """Return whether a step was ever made here, or in one of the stages here."""
    metrics = out / METRICS
    steps = (metrics.exists() and metrics.stat().st_size > 0) or any(
        (out / "checkpoints").glob("step-*")
    )
    return steps or any(has_steps(folder) for folder in out.glob("[0-9]*-*") if folder.is_dir())


def stage_folders(out: Path, recipe: Recipe) -> list[Path]:
    """List the run folders of a recipe's stages, in order: OUT/1-NAME, OUT/2-NAME, ..."""
    return [out / f"{number}-{name}" for number, name in enumerate(recipe.stages, start=1)]


def changed_setting(before: Recipe, now: Recipe) -> str:
    """Name the first setting that makes a resumed run compute something else.

    Returns:
        `KEY was A and is now B`, or an empty string if there is none.
    """
    if before.stages or now.stages:
        earlier, later = stage_recipes(before), stage_recipes(now)
        if list(earlier) != list(later):
            had, have = (", ".join(names) or "none" for names in (earlier, later))
            return f"stages were {had} and are now {have}"
        changes = ((name, changed_setting(earlier[name], later[name])) for name in later)
        return next((f"stages.{name}.{change}" for name, change in changes if change), "")
    old, new = _that_matter(before), _that_matter(now)
    changed = next((key for key, value in new.items() if old.get(key) != value), None)
    return f"{changed} was {old.get(changed)} and is now {new[changed]}" if changed else ""


def _that_matter(recipe: Recipe) -> dict[str, Any]:
    """Return the settings on which results depend, by `section.key`."""
    values = recipe.model_dump(mode="json", exclude={"description": True, "training": MAY_DIFFER})
    if start := recipe.training.start_from:
        # A resumed run does not read it; another working folder may name it differently.
        values["training"]["start_from"] = Path(*Path(start).parts[-2:]).as_posix()
    flat = {"seed": values.pop("seed")}
    for section, settings in values.items():
        flat |= {f"{section}.{key}": value for key, value in settings.items()}
    return flat


@contextmanager
def _exit_recorded(out: Path, rank: int) -> Iterator[None]:
    """Record in `exit.json` how the block ended: exit code and reason of this rank."""
    # Replaces the entry of an earlier process, in case this one is killed.
    _write_exit(out, rank, None, RUNNING)
    code, reason = 0, "done"
    try:
        with naming_lost():
            yield
    except (SeenetError, Terminated, KeyboardInterrupt) as error:
        code, reason = getattr(error, "exit_code", 130), str(error) or "stopped by a signal"
        raise
    except BaseException as error:
        code, reason = 1, f"{type(error).__name__}: {error}"
        raise
    finally:
        _write_exit(out, rank, code, reason)


def _write_exit(out: Path, rank: int, code: int | None, reason: str) -> None:
    path = out / "exit.json"
    entries: dict[str, object] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        # A lock of its own: the file is replaced, and rank 0 holds the run's lock.
        with (out / ".exit.lock").open("a") as lock, locked(lock.fileno()):
            with suppress(OSError, ValueError, TypeError):
                entries = dict(json.loads(path.read_text(encoding="utf-8")))
            entries[str(rank)] = {"code": code, "reason": reason}
            write_text(path, json.dumps(entries, indent=1))
    except OSError as error:
        # A full disk, for example; it must not hide the reason why the run ended.
        log.warning("%s: cannot be written (%s)", path, error)


def writing(folder: Path) -> AbstractContextManager[None]:
    """Turn an error of writing in the block into a DataError that names folder and reason.

    safetensors has its own error class for a full disk.
    """
    fix = "make room or give another --out; earlier checkpoints are intact, for --resume"
    return writing_to(folder, fix, errors=(OSError, SafetensorError))


class IdleSignal(BaseException):
    """A signal came while no step was being computed."""


class StopRequest:
    """Request of a signal to stop: `code` is 0 before it and the exit code after it."""

    def __init__(self) -> None:
        self.code = 0
        self._idle = False

    def handle(self, number: int, _: FrameType | None) -> None:
        if self.code == 130 and number == signal.SIGINT:
            raise KeyboardInterrupt  # The second Ctrl-C exits at once.
        self.code = EXIT_CODES[signal.Signals(number)]
        if self._idle:
            # Only once: saving, which follows, must not be interrupted.
            self._idle = False
            raise IdleSignal

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Raise `IdleSignal` if a signal comes in the block, where no step is being computed."""
        self._idle = True
        try:
            yield
        finally:
            self._idle = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGTERM and Ctrl-C in the block, so that a run can end after its current step.

    Python delivers signals to the main thread only: in another thread, no request ever comes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        log.info(
            "not in the main thread: SIGTERM and Ctrl-C will not save the current step; "
            "the last checkpoint is what remains"
        )
        yield request
        return
    before = {number: signal.signal(number, request.handle) for number in EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stop_signals(_: int) -> None:
    """Ignore stop signals in a loader worker: the trainer handles them and still needs it."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block stop signals; a worker forked in the block blocks them until it ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
