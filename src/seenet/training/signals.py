"""SIGTERM and Ctrl-C end a run after the step, or the validation picture, that is under way."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("seenet")

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


class Waited(BaseException):
    """A signal came while nothing was under way."""


class StopRequest:
    """`code` is 0 until a signal asks to stop, then the exit code to end with."""

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
            raise Waited

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Within the block nothing is under way that a signal has to wait for: it raises `Waited`."""
        self._idle = True
        try:
            yield
        finally:
            self._idle = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Listen while the block runs; the handlers before it come back afterwards.

    Python gives signals to the main thread alone: in another one nothing ever asks to stop.
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


def ignore_in_worker(_: int) -> None:
    """For loader workers: a signal to the whole group is the trainer's to answer, who still needs them for the step under way."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def held_back() -> Iterator[None]:
    """Signals wait until the block ends; in a worker forked in it they wait until it ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
