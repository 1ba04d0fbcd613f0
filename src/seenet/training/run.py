"""A run's folder: who holds it, what it was started with, how it ended."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seenet.core.errors import BusyError, DataError, SeenetError, UsageError
from seenet.core.files import write_text
from seenet.core.settings import Recipe, dump, parse_recipe

MAY_DIFFER = {"training": {"workers", "checkpoint_every", "keep"}}
"""Settings that a resumed run may change: they change nothing of what is computed."""


@contextmanager
def open_run(out: Path, recipe: Recipe, *, resume: bool, rank: int = 0) -> Iterator[Path]:
    """Hold the run while the block lasts; the first rank creates it or, resuming, checks that the recipe is the same.

    Raises BusyError where another process holds it, DataError for an existing run without `resume` (or none with it), UsageError for
    another recipe. How the block ended is written to `exit.json`, by rank.
    """
    if rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        with (out / "lock").open("a+") as lock:
            _take(lock.fileno(), out)
            _prepare(out, recipe, resume)
            with _recorded(out, rank):
                yield out
    else:
        with _recorded(out, rank):
            yield out


def _take(handle: int, out: Path) -> None:
    # The kernel gives the lock back when its holder dies, so that a stale one is taken over by itself.
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = (out / "lock").read_text(encoding="utf-8").strip() or "another process"
        raise BusyError(f"{out}: busy, held by {holder}; wait for it, or give another --out") from None
    os.ftruncate(handle, 0)
    os.write(handle, f"host {socket.gethostname()} pid {os.getpid()}\n".encode())


def _prepare(out: Path, recipe: Recipe, resume: bool) -> None:
    path = out / "recipe.yaml"
    if not path.exists():
        if resume:
            raise DataError(f"{path}: no run to resume here; start it without --resume")
        others = sorted(entry.name for entry in out.iterdir() if entry.name not in {"lock", "exit.json"})
        if others:
            raise DataError(f"{out}: holds {others[0]} but no run; give a new or empty folder with --out")
        write_text(path, dump(recipe))
        return
    if not resume:
        raise DataError(f"{out}: a run is there already; go on with --resume, or give another --out")
    before = parse_recipe(path.read_text(encoding="utf-8"), str(path), [])
    found = difference(before, recipe)
    if found:
        raise UsageError(f"{path}: {found}; resume with the same settings, or start another run with --out")


def difference(before: Recipe, now: Recipe) -> str:
    """The first setting in which a resumed run would compute something else, as `key was A and is now B`; empty where there is none."""
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    for section, values in new.items():
        if not isinstance(values, dict):
            values, old[section] = {section: values}, {section: old[section]}
        for key, value in values.items():
            if key not in MAY_DIFFER.get(section, set()) | {"description"} and old[section].get(key) != value:
                return f"{section}.{key} was {old[section].get(key)} and is now {value}"
    return ""


@contextmanager
def _recorded(out: Path, rank: int) -> Iterator[None]:
    code, reason = 0, "done"
    try:
        yield
    except SeenetError as error:
        code, reason = error.exit_code, str(error)
        raise
    except KeyboardInterrupt:
        code, reason = 130, "interrupted"
        raise
    except BaseException as error:
        code, reason = 1, f"{type(error).__name__}: {error}"
        raise
    finally:
        _record(out / "exit.json", rank, {"code": code, "reason": reason})


def _record(path: Path, rank: int, entry: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        entries = json.loads(text) if text else {}
        entries[str(rank)] = entry
        file.truncate(0)
        file.write(json.dumps(entries, indent=1))
