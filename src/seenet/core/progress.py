"""One look for every long piece of work: a bar with count, rate and ETA on stderr; a line now and then where there is no terminal."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
Advance = Callable[..., None]
"""`advance(count=1, note="")`: so many more are done; `note` stands at the end of the bar."""

LINE_EVERY_SECONDS = 15.0


@contextmanager
def bar(what: str, total: int, done: int = 0, *, inner: bool = False) -> Iterator[Advance]:
    """Show progress on stderr while the block runs, starting from `done` of `total`; of several processes the first alone does.

    Within another bar's block it stands below that one; an `inner` bar goes when it is done, and has no lines where it takes no time.
    """
    if os.environ.get("WORLD_SIZE", "1") not in {"", "1"} and os.environ.get("RANK", "0") not in {"", "0"}:
        yield _silent
        return
    if not sys.stderr.isatty():
        yield _lines(what, total, done, inner)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("ETA"),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=_console(), transient=inner) as progress:
        task = progress.add_task(what, total=total, completed=done, note="")

        def advance(count: int = 1, note: str = "") -> None:
            progress.update(task, advance=count, note=note)

        yield advance


def track(items: Iterable[T], what: str, total: int, done: int = 0) -> Iterator[T]:
    """Yield `items` under a bar that begins at `done` of `total`."""
    with bar(what, total, done) as advance:
        for item in items:
            yield item
            advance()


@cache
def _console() -> Console:
    # One for all: bars know of each other by it.
    return Console(stderr=True)


def _silent(count: int = 1, note: str = "") -> None:
    pass


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
        # By what was done since the last line: what was long once (a trial, a pause) is over.
        eta = (now - last) / max(done - before, 1) * (total - done)
        last, before = now, done
        print(
            f"{what}: {done}/{total}, {now - started:.0f} s, ETA {eta:.0f} s{', ' + note if note else ''}",
            file=sys.stderr,
            flush=True,
        )

    return advance
