"""A run's folder: who holds it, what it was started with, how it ended."""

import json
import logging
import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import torch

from seenet import __version__
from seenet.core.errors import DataError, SeenetError, Terminated, UsageError
from seenet.core.files import remove_leftovers, write_text
from seenet.core.locks import locked
from seenet.core.recipe_files import dump, load_recipe, stage_recipes
from seenet.core.settings import Recipe
from seenet.distributed import naming_lost
from seenet.training.logging import METRICS
from seenet.training.writing import writing

log = logging.getLogger("seenet")

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")
"""Whose versions a run notes: what numbers depend on."""

STARTED = {"recipe.yaml", METRICS, "checkpoints", "tensorboard"}
"""What a start writes before its first step."""

WRITTEN = ("recipe.yaml", "model.safetensors", "model-last.safetensors", "val.json")
"""Files of which a kill may leave a half, as large as a model, under a hidden name."""

UNDER_WAY = "under way, or killed"

MAY_DIFFER = {"training": {"workers", "checkpoint_every", "keep", "timeout_minutes"}}
"""Settings that a resumed run may change: they change nothing of what is computed."""


@contextmanager
def open_run(out: Path, recipe: Recipe, *, resume: bool, rank: int = 0) -> Iterator[Path]:
    """Hold the run while the block lasts; the first rank creates it or, resuming, checks that the recipe is the same.

    Raises BusyError where another process holds it, DataError for an existing run without `resume` (or none with it), UsageError for
    another recipe. A start that ended before its first step is no run yet: either way it starts anew. A job that torchrun or a
    scheduler restarts goes on without `resume`. How the block ended is written to `exit.json`, by rank.
    """
    if rank == 0:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            ours = (out / "exit.json").exists()
            lock = (out / "lock").open("a+")
        with lock, _taken(lock.fileno(), out) as before:
            _prepare(out, recipe, resume or (_goes_on(before) and begun(out)), ours)
            # Only now: a restart of a job that was refused here must be refused again.
            _sign(lock.fileno(), _job())
            remove_leftovers(out / name for name in WRITTEN)
            with _recorded(out, rank):
                yield out
    else:
        with _recorded(out, rank):
            yield out


@contextmanager
def _taken(handle: int, out: Path) -> Iterator[str]:
    """Hold the lock and say whose it is; yields what its last holder had said."""
    # The kernel gives the lock back when its holder dies, so that a stale one is taken over by itself.
    before = (out / "lock").read_text(encoding="utf-8").strip()
    with locked(handle, busy=f"{out}: busy, held by {before or 'another process'}; wait for it, or give another --out"):
        _sign(handle, _job() if _goes_on(before) else "")
        yield before


def _sign(handle: int, job: str) -> None:
    """Write who holds the run."""
    os.ftruncate(handle, 0)
    os.write(handle, f"host {socket.gethostname()} pid {os.getpid()}{job}\n".encode())


def _job() -> str:
    """What torchrun's processes of one job share, over restarts too: its name or, where it was given none, their launcher."""
    job = os.environ.get("TORCHELASTIC_RUN_ID")
    if job is None:
        return ""
    return f" launcher {os.getppid()}" if job == "none" else f" job {job}"


def _goes_on(before: str) -> bool:
    """Whether this is the same job as held the run before: restarted by torchrun, or by a scheduler under the same --rdzv-id."""
    return bool(_job()) and before.endswith(_job())


def _prepare(out: Path, recipe: Recipe, resume: bool, ours: bool) -> None:
    """`ours`: an earlier start left its exit.json here; what else it left may be replaced, a recipe of the user's own may not."""
    path = out / "recipe.yaml"
    if path.exists() and begun(out):
        if not resume:
            raise DataError(f"{out}: a run is there already; go on with --resume, or give another --out")
        before = load_recipe(path)
        found = difference(before, recipe)
        if found:
            raise UsageError(f"{path}: {found}; resume with the same settings, or start another run with --out")
        return
    if resume and not (ours and path.exists()):
        raise DataError(f"{path}: no run to resume here; start it without --resume")
    left = {"lock", "exit.json"} | (STARTED | {folder.name for folder in stage_folders(out, recipe)} if ours else set())
    # Hidden ones are what a killed start leaves of a file half written.
    others = sorted(entry.name for entry in out.iterdir() if entry.name not in left and entry.name[0] != ".")
    if others:
        raise DataError(f"{out}: holds {others[0]} but no run; give a new or empty folder with --out")
    # First, so that a recipe that a killed start leaves is known as its own.
    _record(out, 0, None, UNDER_WAY)
    with writing(out):
        write_text(path, dump(recipe))


def origin(device: torch.device, command: str | None) -> dict[str, str | None]:
    """What a model was computed with: command, device, versions."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {"command": command, "device": str(device), "version": __version__, "python": platform.python_version(), **versions}


def begun(out: Path) -> bool:
    """Whether a step was ever made here, or in one of the stages here."""
    metrics = out / METRICS
    steps = (metrics.exists() and metrics.stat().st_size > 0) or any((out / "checkpoints").glob("step-*"))
    return steps or any(begun(folder) for folder in out.glob("[0-9]*-*") if folder.is_dir())


def stage_folders(out: Path, recipe: Recipe) -> list[Path]:
    """The run folders of a recipe's stages, in order: OUT/1-NAME, OUT/2-NAME, ..."""
    return [out / f"{number}-{name}" for number, name in enumerate(recipe.stages, start=1)]


def difference(before: Recipe, now: Recipe) -> str:
    """The first setting in which a resumed run would compute something else, as `key was A and is now B`; empty where there is none."""
    if before.stages or now.stages:
        earlier, later = stage_recipes(before), stage_recipes(now)
        if list(earlier) != list(later):
            return f"stages were {', '.join(earlier) or 'none'} and are now {', '.join(later) or 'none'}"
        return next((f"stages.{name}.{found}" for name in later if (found := difference(earlier[name], later[name]))), "")
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
def _recorded(out: Path, rank: int) -> Iterator[None]:
    # What an earlier process left here must not speak for this one, should it be killed.
    _record(out, rank, None, UNDER_WAY)
    code, reason = 0, "done"
    try:
        with naming_lost():
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
        _record(out, rank, code, reason)


def _record(out: Path, rank: int, code: int | None, reason: str) -> None:
    path = out / "exit.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        # A lock of its own: the file is replaced, and the run's lock is the first rank's.
        with (out / ".exit.lock").open("a") as lock, locked(lock.fileno()):
            entries = {**_entries(path), str(rank): {"code": code, "reason": reason}}
            write_text(path, json.dumps(entries, indent=1))
    except OSError as error:
        # Such as a full disk, which is the reason that must come through.
        log.warning("%s: cannot be written (%s)", path, error)


def _entries(path: Path) -> dict[str, object]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}
