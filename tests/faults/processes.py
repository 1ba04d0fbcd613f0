"""Processes to be killed, forked from this one, which has imported torch, or started anew."""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.faults.fault import Attempt

ROOT = Path(__file__).parents[2]


def wait_until(
    condition: Callable[[], object], what: str, limit: float = 600, every: float = 0.002
) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"waited {limit} s in vain until {what}"
        time.sleep(every)


@dataclass(frozen=True)
class Child:
    """Process that leads its own session; stdout and stderr go to `log`."""

    process: BaseProcess
    log: Path

    @property
    def pid(self) -> int:
        return int(self.process.pid or 0)

    @property
    def code(self) -> int | None:
        """Exit code; negative: the signal that ended it; None: it runs."""
        return self.process.exitcode

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace").strip()

    @property
    def last_line(self) -> str:
        return self.said.rpartition("\n")[2]

    def ends(self, *codes: int) -> int:
        """Wait for the end; return the exit code, which must be one of `codes` (none: any)."""
        wait_until(lambda: self.code is not None, "the process ends")
        assert not codes or self.code in codes, f"ended with {self.code}: {self.last_line}"
        return int(self.code or 0)

    def refuses(self, *words: str) -> None:
        """Require exit code 4, and one line of output that contains the words."""
        self.ends(4)
        one_line = "\n" not in self.said and all(word in self.said for word in words)
        assert one_line, f"said {self.said[:200]}"

    def until(self, condition: Callable[[], object], what: str, every: float = 0.002) -> None:
        """Wait until the condition holds or the process ends."""
        wait_until(lambda: condition() or self.code is not None, what, every=every)

    def kill(self) -> int:
        """Send SIGKILL to this process only, not to its children; return the exit code."""
        self.process.kill()
        return self.ends(0, -signal.SIGKILL)


def forked(
    attempt: Attempt, work: Callable[[], object], environment: Mapping[str, str] = os.environ
) -> Child:
    """Run `work` in a child process, in the try's folder."""
    log = attempt.folder / f"log-{len(attempt.groups)}"
    log.touch()

    def body() -> None:
        os.setsid()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), stream)
        os.environ.update(environment)
        tempfile.tempdir = None
        os.chdir(attempt.folder)
        work()

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    child = Child(process, log)
    attempt.groups.append(child.pid)
    return child


def seenet(
    attempt: Attempt, *arguments: str, environment: dict[str, str] | None = None, ranks: int = 0
) -> Child:
    """Run `seenet ARGUMENTS`: forked, or with `ranks` as from a shell (1) or by torchrun (more)."""
    import seenet.training.stages  # noqa: F401  so that the child need not import it
    from seenet.cli import main

    torchrun = ("torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1")
    launcher = ["-m", *torchrun, "--nproc-per-node", str(ranks)] if ranks > 1 else []
    python = [sys.executable, *launcher, "-m", "seenet", *arguments]
    paths = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}

    def work() -> None:
        if ranks:
            os.execv(python[0], python)
        sys.argv = ["seenet", *arguments]
        main()

    return forked(attempt, work, paths | (environment or {}))


def children(pid: int) -> list[int]:
    """List the child processes of one that may have ended."""
    try:
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []


def descendants(attempt: Attempt, pid: int) -> list[int]:
    """List all processes below one; the end of the try kills those that lead a session."""
    found = [below for child in children(pid) for below in (child, *descendants(attempt, child))]
    attempt.groups.extend(found)
    return found


def ended(pid: int) -> bool:
    """Return whether a process is gone, or dead and not yet collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
