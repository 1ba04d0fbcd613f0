"""Lock files and folders for this process alone: a forked child does not keep the lock."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from seenet.core.errors import BusyError

_held: set[int] = set()
"""File descriptors that this process has locked."""


@contextmanager
def locked(handle: int, *, busy: str | None = None) -> Iterator[None]:
    """Lock an open file or folder while the block runs.

    Args:
        handle: its file descriptor.
        busy: message of the error if another process holds the lock; None: wait for it.

    Raises:
        BusyError: another process holds the lock, and `busy` is given.
    """
    _held.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(busy) from None
        yield
    finally:
        _held.discard(handle)
        # Closing is not enough: a child forked just before the lock was taken has the file open.
        fcntl.flock(handle, fcntl.LOCK_UN)


def _release_in_child() -> None:
    """Detach a forked child from the locks of its parent.

    `flock` locks the open file, which parent and child share. A loader worker that outlives a
    killed trainer by some seconds would otherwise keep the run locked. The descriptors stay open,
    for whoever closes them, but point to /dev/null.
    """
    if _held:
        null = os.open(os.devnull, os.O_RDWR)
        for handle in _held:
            os.dup2(null, handle, inheritable=False)
        os.close(null)
        _held.clear()


# At import, since a registered function cannot be removed.
os.register_at_fork(after_in_child=_release_in_child)
