"""Processes to be killed, forked from this one, which has imported torch, or started anew."""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

from tests.faults.fault import Attempt
from tests.training.launching import ENVIRONMENT, torchrun


def wait_until(
    condition: Callable[[], object], what: str, limit: float = 600, every: float = 0.002
) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"waited {limit} s in vain until {what}"
        time.sleep(every)


class Child(multiprocessing.get_context("fork").Process):
    """Forked process in a session and in the folder of its own try; what it says goes to `log`."""

    def __init__(
        self,
        attempt: Attempt,
        work: Callable[[], object],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__()
        self.folder, self.work, self.environment = attempt.folder, work, environment
        self.log = attempt.folder / f"log-{len(list(attempt.folder.glob('log-*')))}"
        self.log.touch()
        self.start()

    def run(self) -> None:
        os.setsid()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for stream in (1, 2):
            os.dup2(os.open(self.log, os.O_WRONLY | os.O_APPEND), stream)
        os.environ.update(self.environment)
        tempfile.tempdir = None
        os.chdir(self.folder)
        self.work()

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace").strip()

    @property
    def last_line(self) -> str:
        return self.said.rpartition("\n")[2]

    def until(self, condition: Callable[[], object], what: str, every: float = 0.002) -> None:
        """Wait until the condition holds or the process ends."""
        wait_until(lambda: condition() or self.exitcode is not None, what, every=every)

    def ends(self, *codes: int) -> int:
        """Wait for the end; return the exit code, which must be one of `codes` (none: any)."""
        wait_until(lambda: self.exitcode is not None, "the process ends")
        right = not codes or self.exitcode in codes
        assert right, f"ended with {self.exitcode}: {self.last_line}"
        return self.exitcode

    def refuses(self, *words: str) -> None:
        """Require exit code 4, and one line of output that contains the words."""
        self.ends(4)
        one_line = "\n" not in self.said and all(word in self.said for word in words)
        assert one_line, f"said {self.said[:200]}"

    def kill(self) -> int:
        """Send SIGKILL to this process only, not to its children; return the exit code."""
        super().kill()
        return self.ends(0, -signal.SIGKILL)


def seenet(
    attempt: Attempt, *arguments: str, environment: Mapping[str, str] | None = None, ranks: int = 0
) -> Child:
    """Run `seenet ARGUMENTS`: forked, or with `ranks` as from a shell (1) or by torchrun (more)."""
    import seenet.training.stages  # noqa: F401  so that the child need not import it
    from seenet.cli import main

    python = torchrun(ranks) if ranks > 1 else [sys.executable]

    def work() -> None:
        if ranks:
            os.execv(python[0], [*python, "-m", "seenet", *arguments])
        sys.argv = ["seenet", *arguments]
        main()

    return Child(attempt, work, {**ENVIRONMENT, **(environment or {})})
