"""Locks on files and folders that are this process's alone: what it forks meanwhile does not keep them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from seenet.core.errors import BusyError

_held: set[int] = set()


@contextmanager
def locked(handle: int, *, shared: bool = False, busy: str | None = None) -> Iterator[None]:
    """Hold an open file or folder while the block runs, alone or with others that share it.

    Where another holds it: wait, or with `busy` raise BusyError of that text.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    _held.add(handle)
    try:
        try:
            fcntl.flock(handle, kind if busy is None else kind | fcntl.LOCK_NB)
        except OSError:
            if busy is None:
                raise
            raise BusyError(busy) from None
        yield
    finally:
        _held.discard(handle)
        # Not by closing alone: a child that was forked just before the lock was taken has it too.
        fcntl.flock(handle, fcntl.LOCK_UN)


def _let_go() -> None:
    """In a child: `flock` belongs to what was opened, so that a loader worker that outlives a killed trainer for some seconds would hold
    the run. The handles stay, for whoever closes them, but lead nowhere.
    """
    if _held:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for handle in _held:
            os.dup2(nowhere, handle, inheritable=False)
        os.close(nowhere)
        _held.clear()


# Once: nothing that is registered there can be taken back.
os.register_at_fork(after_in_child=_let_go)
