"""Child processes that run a module of this project: for what may crash, eat the memory, or keep too much of it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

REFUSED = 4
"""Exit code of a child that says itself why it does not go on, as for bad data."""


@dataclass(frozen=True)
class Ended:
    """How a child process ended."""

    code: int
    """Its exit code; negative: the signal that killed it."""
    output: str
    """What it wrote to stdout."""
    message: str
    """The last line of its stderr; empty where there is none."""

    @property
    def how(self) -> str:
        """Return `code 1` or `signal 9`."""
        return f"signal {-self.code}" if self.code < 0 else f"code {self.code}"


def run_module(module: str, *arguments: str | os.PathLike[str], timeout: float, pass_fds: Sequence[int] = ()) -> Ended:
    """Run `python -m MODULE ARGUMENT...` to its end.

    A module starts one of its own layer or below: what it imports shows to whoever checks the layers.

    Args:
        timeout: seconds after which the process is killed.
        pass_fds: open files that the process inherits.

    Raises:
        TimeoutError: it took too long.
    """
    command = [sys.executable, "-m", module, *(os.fspath(one) for one in arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, pass_fds=pass_fds)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{module}: not ended within {timeout:.0f} s") from None
    return Ended(done.returncode, done.stdout, (done.stderr.strip().splitlines() or [""])[-1])


def refuse(message: str, code: int = REFUSED) -> NoReturn:
    """End this process with one line on stderr, which its parent reads as `Ended.message`."""
    print(message.replace("\n", " "), file=sys.stderr)
    sys.exit(code)
