"""SIGTERM and Ctrl-C end a run after the step that is under way."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


class StopRequest:
    """`code` is 0 until a signal asks to stop, then the exit code to end with."""

    def __init__(self) -> None:
        self.code = 0

    def handle(self, number: int, _: FrameType | None) -> None:
        if self.code == 130 and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C: now
        self.code = EXIT_CODES[signal.Signals(number)]


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
