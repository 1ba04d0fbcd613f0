"""SIGTERM and Ctrl-C end a run after the step that is under way."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np

from seenet.core.errors import Stopped
from seenet.data.split import Split

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


class StopRequest:
    """`code` is 0 until a signal asks to stop, then the exit code to end with."""

    def __init__(self) -> None:
        self.code = 0

    def handle(self, number: int, _: FrameType | None) -> None:
        if self.code == 130 and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C: now
        self.code = EXIT_CODES[signal.Signals(number)]


class Interruptible:
    """A split that raises Stopped at the next picture once a stop was asked for, so that a long validation does not hold it up."""

    def __init__(self, split: Split, request: StopRequest) -> None:
        self._split, self._request = split, request

    def __len__(self) -> int:
        return len(self._split)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._split, name)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self._request.code:
            raise Stopped("stopped while validating", self._request.code)
        return self._split.read(index)


def ignore_interrupts(_: int) -> None:
    """For loader processes: Ctrl-C reaches the whole group, but what they do is the trainer's to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Listen while the block runs; the handlers before it come back afterwards."""
    request = StopRequest()
    before = {number: signal.signal(number, request.handle) for number in EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
