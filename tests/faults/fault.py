"""Faults and their tries, and the damage that is done to files."""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class Attempt:
    """One try: its number, its folder, its random generator, and the situations it met."""

    number: int
    folder: Path
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    notes: list[str] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """Return the folder of the try's training run."""
        return self.folder / "run"

    def note(self, situation: str) -> None:
        """Record a situation of this try; the page of results counts them."""
        self.notes.append(situation)

    def processes(self) -> list[int]:
        """List the living processes of this try: those that work in its folder."""
        found = []
        for link in Path("/proc").glob("[0-9]*/cwd"):
            # Others may end meanwhile, or belong to others.
            with suppress(OSError):
                if link.readlink() == self.folder:
                    found.append(int(link.parent.name))
        return found

    def close(self) -> None:
        """Kill the processes that still run, and remove the folder."""
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


Try = Callable[[Attempt], None]
"""Injects a fault once; raises an error unless the promise holds."""


@dataclass(frozen=True)
class Fault:
    """Fault that is injected `tries` times.

    `id` begins with the promise in question (`T4.rank` with T4). `needs` returns why this machine
    cannot inject it, or an empty string. `must_fail` marks the known-bad baseline, which proves
    that the harness finds failures. `limit` is in seconds per try.
    """

    id: str
    what: str
    tries: int
    run: Try
    needs: Callable[[], str] = str
    must_fail: bool = False
    limit: int = 1800


def tree(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """Read all files below the folder whose path matches."""
    files = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def flipped(content: bytes, rng: np.random.Generator, end: int | None = None) -> bytes:
    """Change one random byte before `end`."""
    changed = bytearray(content)
    changed[int(rng.integers(end or len(content)))] ^= int(rng.integers(1, 256))
    return bytes(changed)


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    """Truncate to a random length."""
    return content[: int(rng.integers(len(content)))]
