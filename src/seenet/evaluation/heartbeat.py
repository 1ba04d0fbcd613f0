"""Which of several processes is lost: each says every second, in the store where they met, that it lives, and looks for the others.

Collective operations wait for a process that was killed or stopped, or fail without naming it; and what waits inside gloo or NCCL can
only be ended with its process. So a thread of its own does. Time is counted in this process's own beats: where all of them are suspended
together (by a scheduler, Ctrl-Z, a sleeping machine) none is missed afterwards.
"""

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from seenet.core.errors import LostError, SeenetError, Terminated
from seenet.evaluation.whereabouts import WAITING, whereabouts

BEAT = 1.0
"""Seconds between two signs of life."""
SILENCE = 60
"""Beats without a sign of life after which a process counts as frozen."""
SUSPICION = 4
"""The same where an operation with it has failed, so that it is probably gone; a launcher gives those it ends 30 s."""
LATE = 600
"""Beats in which all must have come: a cold start from a slow disk takes minutes."""
GRACE = 10.0
"""Seconds in which a process may end by itself, with its files closed, once another one is lost."""
GO_ON = "go on with --resume (train) or the same command (eval)"
ON_REQUEST = (0, 130, 143)
"""Exit codes of a process that ended as it was meant to."""


@dataclass
class Seen:
    """What a rank said last (count, host and pid, a tab, whereabouts; or `left CODE WHY`), and at which beat that was new; empty before
    its first word.
    """

    word: str = ""
    since: int = 0

    @property
    def who(self) -> str:
        found = self.word.partition("\t")[0].partition(" ")[2]
        return f" ({found})" if found else ""

    @property
    def place(self) -> str:
        return self.word.partition("\t")[2]


class Heartbeat:
    """This process among `world` ones that share `store`. `on_lost` is called with the LostError before the process is ended."""

    def __init__(self, store: Any, rank: int, world: int) -> None:
        # A connection of its own: one that waits for another process's key is not free to say anything.
        self.store, self.rank = store.clone(), rank
        self.store.set_timeout(timedelta(seconds=SILENCE))
        self.seen = {other: Seen() for other in range(world) if other != rank}
        self.on_lost: list[Callable[[LostError], None]] = []
        self._count = 0
        self._told: LostError | None = None
        # Who trains or evaluates; not always the main one.
        self._watched = threading.get_ident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def leave(self, error: BaseException | None) -> None:
        """Tell the others that, and why, this process ends; stop watching."""
        self._stop.set()
        self._thread.join()
        code = 0 if error is None else 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
        why = str(error) if isinstance(error, SeenetError) else f"{type(error).__name__}: {error}"
        with suppress(RuntimeError):
            self._say(f"left {code} {' '.join(why.split())}")

    def explain(self, failed: bool, *, timed_out: bool = False) -> LostError | None:
        """Who is lost, after an operation with the others failed (`failed`), for lack of time (`timed_out`), or a signal came: at once
        where that is known, else within some seconds; None where nobody is.
        """
        end = self._count + SUSPICION + 3
        while self._count < end and self._thread.is_alive():
            # The launcher's SIGTERM may come only now.
            with suppress(Terminated):
                lost = self._told or self._verdict(SUSPICION, on_request=failed)
                if lost:
                    self._tell(lost)
                    return lost
                time.sleep(BEAT / 10)
        lost = self._absent() if timed_out else None
        if lost:
            self._tell(lost)
        return lost

    def _absent(self) -> LostError | None:
        """Who lives, and is not where the others wait for it."""
        for other, seen in sorted(self.seen.items()):
            if seen.place not in ("", WAITING):
                return LostError(
                    f"rank {other}{seen.who}: lives, but did not come to where the others waited for it; it is in {seen.place}, perhaps at "
                    f"a file system that hangs; {GO_ON}"
                )
        return None

    def _key(self, name: object) -> str:
        return f"heartbeat/{name}"

    def _say(self, word: str) -> None:
        self.store.set(self._key(self.rank), word)

    def _run(self) -> None:
        me = f"host {socket.gethostname()}, pid {os.getpid()}"
        while True:
            try:
                self._say(f"{self._count} {me}\t{whereabouts(self._watched)}")
                self._look()
            except RuntimeError:
                # Who hosts the store is gone, and with it whoever would restart or end this process; what is computed can still be saved.
                print("seenet: the launcher (torchrun) does not answer any more; ending as for SIGTERM", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            lost = self._told or self._verdict(SILENCE, on_request=False)
            if lost:
                self._end(lost)
                return
            if self._stop.wait(BEAT):
                return
            self._count += 1

    def _look(self) -> None:
        come = [other for other, seen in self.seen.items() if seen.word or self.store.check([self._key(other)])]
        for other, word in zip(come, self.store.multi_get([self._key(other) for other in come]) if come else [], strict=True):
            if word.decode() != self.seen[other].word:
                self.seen[other] = Seen(word.decode(), self._count)
        if self.store.check([self._key("lost")]):
            code, _, message = self.store.get(self._key("lost")).decode().partition(" ")
            self._told = LostError(message, int(code))

    def _verdict(self, patience: int, *, on_request: bool) -> LostError | None:
        now = self._count
        for other, seen in sorted(self.seen.items()):
            left = re.match(r"left (\d+) (.*)", seen.word)
            if left:
                code = int(left[1])
                if code and (on_request or code not in ON_REQUEST):
                    return LostError(f"rank {other} ended ({left[2]}), and without it the others cannot go on", code)
            elif now - seen.since > (patience if seen.word else LATE):
                return LostError(
                    f"rank {other}{seen.who}: no sign of life for {(now - seen.since) * BEAT:.0f} s, expected one a second; it was killed, "
                    f"is frozen or never came; {GO_ON}"
                )
        return None

    def _tell(self, lost: LostError) -> None:
        """All are to say the same, also those who wait for one that only ends because of it."""
        self._told = lost
        with suppress(RuntimeError):
            self.store.set(self._key("lost"), f"{lost.exit_code} {lost}")

    def _end(self, lost: LostError) -> None:
        self._tell(lost)
        if self._stop.wait(GRACE):
            return
        for hook in self.on_lost:
            hook(lost)
        print(f"seenet: {lost}", file=sys.stderr, flush=True)
        os._exit(lost.exit_code)


_current: Heartbeat | None = None


@contextmanager
def beating(store: Any, rank: int, world: int) -> Iterator[None]:
    """Tell the others that this process lives while the block runs, and name the one that is lost (`naming_lost`)."""
    global _current
    _current = heartbeat = Heartbeat(store, rank, world)
    heartbeat.start()
    error: BaseException | None = None
    try:
        with naming_lost():
            yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        _current = None
        heartbeat.leave(error)


@contextmanager
def naming_lost(on_lost: Callable[[LostError], None] | None = None) -> Iterator[None]:
    """LostError instead of what the block raises since another process is lost. `on_lost` is called with it where this process cannot even
    raise, being stuck in an operation with that one, before it is ended.
    """
    heartbeat = _current
    if heartbeat is None:
        yield
        return
    hooks = [on_lost] if on_lost else []
    heartbeat.on_lost += hooks
    try:
        yield
    except (RuntimeError, Terminated) as error:
        # A launcher that misses one process sends SIGTERM to the others.
        failed = not isinstance(error, Terminated)
        timed_out = failed and "timed out" in str(error).lower()
        lost = heartbeat.explain(failed, timed_out=timed_out) if not failed or _of_operation(error) else None
        if lost is None:
            raise
        raise lost from None
    finally:
        for hook in hooks:
            heartbeat.on_lost.remove(hook)


def _of_operation(error: BaseException) -> bool:
    """Whether it comes from gloo, NCCL or the store; gloo has no class of error of its own."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)
