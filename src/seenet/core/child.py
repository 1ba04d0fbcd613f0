"""Run a module of this package in a child process: for work that may crash or exhaust memory."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

REFUSED = 4
"""Exit code of a child that refuses its input and prints the reason, as for bad data."""


@dataclass(frozen=True)
class Ended:
    """Result of a child process.

    Attributes:
        code: exit code; if negative, the signal that killed the process.
        output: text on stdout.
        message: last line on stderr, or "".
    """

    code: int
    output: str
    message: str

    @property
    def how(self) -> str:
        """Return `code 1` or `signal 9`."""
        return f"signal {-self.code}" if self.code < 0 else f"code {self.code}"


def run_module(
    module: str, *arguments: str | os.PathLike[str], timeout: float, pass_fds: Sequence[int] = ()
) -> Ended:
    """Run `python -m MODULE ARGUMENT...` and wait until it ends.

    Give a module of the caller's own layer or of one below, as for an import.

    Args:
        module: full name of the module.
        arguments: its command line.
        timeout: seconds after which the process is killed.
        pass_fds: open file descriptors that the process inherits.

    Raises:
        TimeoutError: the process did not end in time.
    """
    command = [sys.executable, "-m", module, *(os.fspath(argument) for argument in arguments)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, pass_fds=pass_fds
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{module}: did not end within {timeout:.0f} s") from None
    return Ended(done.returncode, done.stdout, (done.stderr.strip().splitlines() or [""])[-1])


def refuse(message: str, code: int = REFUSED) -> NoReturn:
    """Exit this process with one line on stderr, which the parent gets as `Ended.message`."""
    print(message.replace("\n", " "), file=sys.stderr)
    sys.exit(code)
