"""Progress of long work on stderr: a bar on a terminal, else a line now and then."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
Advance = Callable[..., None]
"""`advance(count=1, note="")`: `count` more are done; `note` is shown at the end of the bar."""

LINE_EVERY_SECONDS = 15.0
CONSOLE = Console(stderr=True)
"""Shared, so that nested bars are drawn below one another."""


@contextmanager
def bar(what: str, total: int, done: int = 0, *, inner: bool = False) -> Iterator[Advance]:
    """Show progress while the block runs; of several processes only rank 0 shows it.

    Args:
        what: description.
        total: number of items.
        done: number of items that are done at the start.
        inner: for work inside another bar. The bar disappears at its end; without a terminal,
            short work prints nothing.
    """
    world, rank = (os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK"))
    if world not in {"", "1"} and rank not in {"", "0"}:
        yield lambda count=1, note="": None
        return
    if not sys.stderr.isatty():
        yield _lines(what, total, done, inner)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=CONSOLE, transient=inner) as progress:
        task = progress.add_task(what, total=total, completed=done, note="")

        def advance(count: int = 1, note: str = "") -> None:
            progress.update(task, advance=count, note=note)

        yield advance


def track(items: Iterable[T], what: str, total: int, done: int = 0) -> Iterator[T]:
    """Yield `items` and show progress, from `done` of `total`."""
    with bar(what, total, done) as advance:
        for item in items:
            yield item
            advance()


def _lines(what: str, total: int, done: int, inner: bool) -> Advance:
    started = last = time.monotonic()
    before = done

    def advance(count: int = 1, note: str = "") -> None:
        nonlocal done, last, before
        done += count
        now = time.monotonic()
        ended = done >= total and not (inner and last == started)
        if not ended and now - last < LINE_EVERY_SECONDS:
            return
        # From the pace since the last line: an earlier pause does not count.
        eta = (now - last) / max(done - before, 1) * (total - done)
        last, before = now, done
        times = f"{now - started:.0f} s, ETA {eta:.0f} s"
        print(f"{what}: {done}/{total}, {times}{note and ', ' + note}", file=sys.stderr, flush=True)

    return advance
