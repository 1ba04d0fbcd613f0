"""What a fault is: one thing that goes wrong, tried so many times, each of which raises unless what was promised holds."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class Attempt:
    """One try: its number, its own generator, an empty folder, and the processes it started.

    `note` counts what was met (which moment a kill hit) for the table.
    """

    number: int
    rng: np.random.Generator
    folder: Path
    notes: list[str] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None:
        """End what still runs, and remove the folder."""
        for group in self.groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(self.folder, ignore_errors=True)


def always() -> str:
    return ""


@dataclass(frozen=True)
class Fault:
    """`id` begins with the bar of reliability it belongs to (`T4.one-rank`); `what` is one line.

    `needs` says why this machine cannot try it, or nothing. `must_fail` marks the known-bad baseline: a harness that lets it pass does
    not bite.
    """

    id: str
    what: str
    tries: int
    run: Callable[[Attempt], None]
    needs: Callable[[], str] = always
    must_fail: bool = False
    limit: int = 1800
    """Seconds that a try may take: patience with a busy machine, no bar."""


def expect(condition: object, message: str) -> None:
    """AssertionError that also stands where assertions are switched off."""
    if not condition:
        raise AssertionError(message)
