"""Errors a user can act on: one line (file, what was found, what was expected, how to fix) and the exit code of the contract."""

import difflib
from collections.abc import Iterable


class SeenetError(Exception):
    """Base of all errors that are the input's fault, not a bug; `exit_code` is what the command returns."""

    exit_code = 1


class UsageError(SeenetError, ValueError):
    """Wrong usage or setting."""

    exit_code = 2


class PartialError(SeenetError):
    """Some inputs failed, the rest is done."""

    exit_code = 3


class DataError(SeenetError):
    """Bad or missing data or file.

    `fix`, where given, ends the line. `kind` sorts what a check of many files finds; `pixels` is how many are wrong, where that is known.
    """

    exit_code = 4

    def __init__(self, message: str, *, fix: str = "", kind: str = "", pixels: int | None = None) -> None:
        super().__init__(f"{message}; {fix}" if fix else message)
        self.fix, self.kind, self.pixels = fix, kind, pixels


class PassingError(DataError):
    """A failure of one moment: a full disk, too little memory, a process that was killed or too slow. The next time it may go well."""


class NotFiniteError(SeenetError):
    """A number is NaN or infinite."""

    exit_code = 5


class CheckError(SeenetError):
    """A check that was asked for did not hold."""

    exit_code = 6


class BusyError(SeenetError):
    """Another process holds the run."""

    exit_code = 75


class LostError(SeenetError):
    """Another process of the same run was killed, is frozen or gave up; `exit_code` is its own where that is known."""

    def __init__(self, message: str, exit_code: int = 75) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Terminated(BaseException):
    """SIGTERM, where nothing of its own listens for it: goes through everything that a KeyboardInterrupt does."""

    exit_code = 143


class Stopped(SeenetError):
    """Ended by a signal after saving: 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def nearest(name: str, choices: Iterable[str]) -> str:
    """Say which of `choices` the user may have meant: `; nearest: a, b`, or all of them when none is near."""
    choices = sorted(choices)
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    return f"nearest: {', '.join(close)}" if close else f"choose from: {', '.join(choices)}"
