"""Errors a user can act on: a one-line message and the exit code of the command.

The line has the file, what was found, what was expected, and how to fix it.
"""

import difflib
from collections.abc import Iterable


class SeenetError(Exception):
    """Base of all errors that the input causes, not a bug; the command exits with `exit_code`."""

    exit_code = 1


class UsageError(SeenetError, ValueError):
    """Wrong usage or setting."""

    exit_code = 2


class PartialError(SeenetError):
    """Some inputs failed, the rest is done."""

    exit_code = 3


class DataError(SeenetError):
    """Bad or missing data or file.

    Args:
        message: file, what was found and what was expected.
        fix: how to fix it; added at the end of the message.
        kind: category by which `seenet data check` groups errors.
        pixels: number of wrong pixels, where counted.
    """

    exit_code = 4

    def __init__(
        self, message: str, *, fix: str = "", kind: str = "", pixels: int | None = None
    ) -> None:
        super().__init__(f"{message}; {fix}" if fix else message)
        self.fix, self.kind, self.pixels = fix, kind, pixels


class PassingError(DataError):
    """A temporary failure, such as a full disk or a killed process; a later try may succeed."""


class NotFiniteError(SeenetError):
    """A number is NaN or infinite."""

    exit_code = 5


class CheckError(SeenetError):
    """A check that was asked for failed."""

    exit_code = 6


class BusyError(SeenetError):
    """Another process uses the run."""

    exit_code = 75


class LostError(SeenetError):
    """Another process of the same run was killed, hangs or gave up.

    `exit_code` is the exit code of that process, where known.
    """

    def __init__(self, message: str, exit_code: int = 75) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Terminated(BaseException):
    """SIGTERM outside the code that handles it: unwinds the stack as KeyboardInterrupt does."""

    exit_code = 143


class Stopped(SeenetError):
    """Ended by a signal after saving: exit code 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return `nearest: a, b`: the choices most like `name`, or all if none is like it."""
    choices = sorted(choices)
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    return f"nearest: {', '.join(close)}" if close else f"choose from: {', '.join(choices)}"
