"""Processes to be ended: forked from this one, which has imported torch, so that a try takes seconds less; or the real command."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.fault import Attempt, expect
from tests.faults.runner import ROOT


@dataclass
class Child:
    """A process that leads a session of its own; both its streams go to `log`."""

    pid: int
    log: Path
    code: int | None = None

    def poll(self) -> int | None:
        """Exit code, negative for the signal that ended it; None while it runs."""
        if self.code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if ended else None
        return self.code

    def wait(self, limit: float = 600) -> int:
        end = time.monotonic() + limit
        while self.poll() is None:
            expect(time.monotonic() < end, f"still running after {limit} s")
            time.sleep(0.005)
        return int(self.code or 0)

    def kill(self) -> None:
        """SIGKILL to it alone, as `kill -9` would; its own children are left as they would be."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def last_line(self) -> str:
        return (self.said().strip().splitlines() or [""])[-1]


def forked(
    attempt: Attempt, work: Callable[[], object], environment: dict[str, str] | None = None
) -> Child:
    """Run `work` in a child; it ends with the code of a SystemExit, 1 for another error."""
    log = attempt.folder / f"log-{len(attempt.groups)}"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setsid()
            signal.alarm(0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            stream = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            os.environ.update(environment or {})
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    attempt.groups.append(pid)
    return Child(pid, log)


def seenet(attempt: Attempt, *arguments: str, environment: dict[str, str] | None = None) -> Child:
    """`seenet ARGUMENTS`, forked; the try's folder is the working folder."""
    import seenet.training.stages  # noqa: F401  so that the child need not
    from seenet.cli import main

    def work() -> None:
        sys.argv = ["seenet", *arguments]
        os.chdir(attempt.folder)
        main()

    return forked(attempt, work, environment)


def command(attempt: Attempt, *words: str, environment: dict[str, str] | None = None) -> Child:
    """A command started anew, as from a shell: `python -m seenet ...` where `words` are (python's arguments)."""
    paths = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}

    def work() -> None:
        os.chdir(attempt.folder)
        os.execve(sys.executable, [sys.executable, *words], {**os.environ, **paths})

    return forked(attempt, work, environment)


def torchrun(
    attempt: Attempt, *arguments: str, environment: dict[str, str] | None = None, world: int = 2
) -> Child:
    """`seenet ARGUMENTS` on several ranks; the child is the launcher."""
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--local-addr",
        "127.0.0.1",
        "--nproc-per-node",
        str(world),
    ]
    return command(attempt, *launcher, "-m", "seenet", *arguments, environment=environment)


def children(pid: int) -> list[int]:
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []


def descendants(attempt: Attempt, pid: int) -> list[int]:
    """All below a process; ended with the try, whatever session they are in."""
    found = [pid for child in children(pid) for pid in (child, *descendants(attempt, child))]
    attempt.groups.extend(found)
    return found


def rank_of(pid: int) -> int | None:
    """The rank that torchrun gave a process."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((int(line[5:]) for line in variables if line.startswith(b"RANK=")), None)


def wait_until(
    condition: Callable[[], object], what: str, limit: float = 600, every: float = 0.002
) -> None:
    end = time.monotonic() + limit
    while not condition():
        expect(time.monotonic() < end, f"waited {limit} s in vain until {what}")
        time.sleep(every)


def ended(pid: int) -> bool:
    """Whether a process is gone, or dead and not yet collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
